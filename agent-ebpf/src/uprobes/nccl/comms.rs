//! Communicators begin, tell of themselves, and end.
#![expect(
    unsafe_code,
    reason = "kernel edge: map values are raw pointers, and memory of the caller is read by a helper"
)]

use aya_ebpf::{
    EbpfContext as _,
    helpers::generated::bpf_probe_read_user,
    macros::{map, uprobe, uretprobe},
    maps::{Array, HashMap, LruHashMap},
    programs::{ProbeContext, RetProbeContext},
};
use plumbline_ebpf::{
    cuda::Lost,
    cuda_told::{Record, Told},
    nccl::{
        Action, Comm, CommKey, Cookie, UNKNOWN,
        hash::{ID_WORDS, of_id},
    },
};

use super::{
    super::{
        BPF_F_NO_PREALLOC, BPF_NOEXIST,
        call::{cookie, stack_address},
        cuda::{add, lost},
        tell::tell,
        thread::{Current, current},
    },
    Arguments,
    arrivals::MEMBERS,
    calls::called_only,
    key,
    split::learn,
    user_u32,
};
use crate::kernel::{user_word, zero};

/// `ncclInvalidArgument` and `ncclInProgress` of `ncclResult_t`.
const INVALID_ARGUMENT: u32 = 4;
const IN_PROGRESS: u32 = 7;

/// Ranks of one process that [`Action::InitAll`] begins: a node has no more GPUs.
const MOST_OF_ALL: u32 = 16;

/// Communicators of one process that have begun and have no handle yet.
const AWAITED: usize = 8;

/// Communicators of the node's processes; the agent takes out those of processes that have ended.
#[map]
static COMMS: HashMap<CommKey, Comm> = HashMap::with_max_entries(8192, BPF_F_NO_PREALLOC);

/// Communicators that begin, by thread.
#[map]
static INITS: LruHashMap<u64, Init> = LruHashMap::with_max_entries(4096, 0);

/// Those whose handle NCCL fills in later, because they begin in a group or are not to block: by process.
#[map]
static HANDLES_AWAITED: LruHashMap<u64, Awaited> = LruHashMap::with_max_entries(256, 0);

/// One entry of zeros, never written: what a new one is made of.
#[map]
static NONE_AWAITED: Array<Awaited> = Array::with_max_entries(1, 0);

/// Questions that a communicator is asked, by thread and function: NCCL asks one while it answers another.
#[map]
static ASKED: LruHashMap<QuestionKey, Question> = LruHashMap::with_max_entries(4096, 0);

/// A communicator that begins.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Init {
    /// Where its handle will be.
    pub out: u64,
    /// Of which it comes, or 0.
    pub parent: u64,
    pub action: u64,
    pub comm: Comm,
}

#[derive(Clone, Copy)]
#[repr(C)]
struct Awaited {
    start_boot_ns: u64,
    next: u64,
    inits: [Init; AWAITED],
}

#[derive(Clone, Copy)]
#[repr(C)]
struct QuestionKey {
    pid_tgid: u64,
    function: u64,
}

#[derive(Clone, Copy)]
#[repr(C)]
struct Question {
    comm: u64,
    out: u64,
}

#[uprobe]
pub fn nccl_init_enter(ctx: ProbeContext) -> u32 {
    let cookie = Cookie::from_bits(cookie(ctx.as_ptr()));
    let arguments = Arguments::of(&ctx);
    let argument = |place| arguments.at(cookie.place(place));
    let Some(current) = current() else { return 0 };
    let mut comm = Comm::UNKNOWN;
    comm.ranks = argument(1) as u32;
    if cookie.action != Action::InitAll as u8 {
        comm.rank = argument(2) as u32;
        let id = if cookie.action == Action::InitByValue as u8 {
            stack_address(&ctx, cookie.place(3) & 7)
        } else {
            argument(3)
        };
        let mut words = [0_u64; ID_WORDS];
        // SAFETY: the helper checks the address and writes to the words at most.
        let failed = unsafe {
            bpf_probe_read_user(words.as_mut_ptr().cast(), size_of_val(&words) as u32, id as *const core::ffi::c_void)
        };
        if failed == 0 {
            comm.hash = of_id(&words);
        }
    }
    begins(current, &Init { out: argument(0), parent: 0, action: cookie.action.into(), comm });
    0
}

#[inline(always)]
pub fn begins(current: Current, init: &Init) {
    let _ = INITS.insert(&current.pid_tgid, init, 0);
}

/// Nothing begins: what an earlier call of this thread has left is not for this one's return.
#[inline(always)]
pub fn begins_none(current: Current) {
    let _ = INITS.remove(&current.pid_tgid);
}

#[uretprobe]
pub fn nccl_init_return(ctx: RetProbeContext) -> u32 {
    let Some(current) = current() else { return 0 };
    let Some(init) = INITS.get_ptr(&current.pid_tgid) else { return 0 };
    // SAFETY: a map value, read before it is removed.
    let init = unsafe { *init };
    let _ = INITS.remove(&current.pid_tgid);
    let result: u32 = ctx.ret();
    if result == INVALID_ARGUMENT && init.parent != 0 && init.action != Action::Shrink as u64 {
        // NCCL has not counted it as a child.
        if let Some(parent) = find(current, init.parent) {
            // SAFETY: a map value; its process may not use it from two threads at a time.
            unsafe { (*parent).children = (*parent).children.wrapping_sub(1) };
        }
    }
    if result != 0 && result != IN_PROGRESS {
        return 0;
    }
    if init.action == Action::InitAll as u64 {
        // They are known to each other alone: the first handle's address and the process's start stand for the hash.
        let hash = (user_word(init.out) ^ current.start_boot_ns()) | 1;
        for rank in 0..MOST_OF_ALL {
            if rank >= init.comm.ranks {
                break;
            }
            let comm = user_word(init.out.wrapping_add(8 * u64::from(rank)));
            begin(current, comm, &Comm { hash, rank, ..init.comm });
            core::hint::black_box(tell_begun(current, comm));
        }
        return 0;
    }
    match user_word(init.out) {
        0 => await_handle(current, &init),
        handle => {
            forget_awaited(current, init.out);
            begin(current, handle, &init.comm);
            // NCCL has waited for all who say what they want.
            let _ = find(current, handle);
            core::hint::black_box(tell_begun(current, handle));
        }
    }
    0
}

/// NCCL writes a handle when the group ends, or when a communicator that is not to block is ready.
#[inline(always)]
fn await_handle(current: Current, init: &Init) {
    let pid = u64::from(current.pid());
    let start_boot_ns = current.start_boot_ns();
    let is_of_another = match HANDLES_AWAITED.get_ptr(&pid) {
        // SAFETY: a map value.
        Some(awaited) => unsafe { (*awaited).start_boot_ns != start_boot_ns },
        None => true,
    };
    if is_of_another {
        let Some(none) = NONE_AWAITED.get(0) else { return };
        let _ = HANDLES_AWAITED.insert(&pid, none, 0);
    }
    let Some(awaited) = HANDLES_AWAITED.get_ptr_mut(&pid) else { return };
    forget_awaited(current, init.out);
    // SAFETY: a map value; the masked place lies within. The oldest gives way.
    unsafe {
        (*awaited).start_boot_ns = start_boot_ns;
        let place = core::hint::black_box((*awaited).next as usize) & (AWAITED - 1);
        (*awaited).next = (*awaited).next.wrapping_add(1);
        *(&raw mut (*awaited).inits).cast::<Init>().add(place) = *init;
    }
}

/// Another handle is to be at the same place.
#[inline(always)]
fn forget_awaited(current: Current, out: u64) {
    let Some(awaited) = HANDLES_AWAITED.get_ptr_mut(&u64::from(current.pid())) else { return };
    for at in 0..AWAITED {
        // SAFETY: a map value, and places within.
        unsafe {
            let before = (&raw mut (*awaited).inits).cast::<Init>().add(at);
            if (*before).out == out {
                (*before).out = 0;
            }
        }
    }
}

/// What is known of a communicator: begun when its handle is used, if it was not filled in before.
#[inline(always)]
pub fn find(current: Current, handle: u64) -> Option<*mut Comm> {
    let key = key(current, handle);
    let mut known = COMMS.get_ptr_mut(&key);
    // Of what was begun only because NCCL said its rank, more may be known.
    // SAFETY: a map value.
    let is_blank = known.is_none_or(|known| unsafe { (*known).hash == 0 && (*known).split.child == 0 });
    if is_blank && handle != 0 && has_come(current, handle) {
        // From here, as a chain of calls has little room for all that is on its stacks.
        core::hint::black_box(tell_begun(current, handle));
        known = COMMS.get_ptr_mut(&key);
    }
    let known = known?;
    // SAFETY: a map value.
    if unsafe { (*known).rank == UNKNOWN && (*known).split.child != 0 } {
        core::hint::black_box(learn(known));
    }
    Some(known)
}

/// Whether this is the handle of one that is awaited.
#[inline(never)]
fn has_come(current: Current, handle: u64) -> bool {
    let Some(awaited) = HANDLES_AWAITED.get_ptr_mut(&u64::from(current.pid())) else { return false };
    // SAFETY: a map value, and places within.
    unsafe {
        if (*awaited).start_boot_ns != current.start_boot_ns() {
            return false;
        }
        for at in 0..AWAITED {
            let init = (&raw mut (*awaited).inits).cast::<Init>().add(at);
            if (*init).out != 0 && user_word((*init).out) == handle {
                let comm = (*init).comm;
                (*init).out = 0;
                begin(current, handle, &comm);
                return true;
            }
        }
    }
    false
}

#[inline(always)]
fn begin(current: Current, handle: u64, comm: &Comm) {
    // What lies is not believed: a rank is one of the ranks.
    let is_sound = comm.rank == UNKNOWN || comm.rank < comm.ranks;
    let comm = if is_sound { *comm } else { Comm { ranks: UNKNOWN, rank: UNKNOWN, ..*comm } };
    if handle == 0 {
        return;
    }
    if COMMS.insert(&key(current, handle), &comm, 0).is_err() {
        lost(Lost::Communicators);
        return;
    }
    if comm.hash != 0 && comm.rank != UNKNOWN {
        admit(comm.hash);
    }
}

/// Whether it did is a number, as kernels refuse what a function without a result leaves.
#[inline(never)]
fn tell_begun(current: Current, handle: u64) -> u64 {
    let Some(comm) = COMMS.get_ptr(&key(current, handle)) else { return zero() };
    // SAFETY: a map value.
    let Comm { hash, rank, ranks, .. } = unsafe { *comm };
    tell(current, Told::Begun, Record { hash, rank, ranks, ..Record::default() });
    zero()
}

/// One more member, on this node.
#[inline(always)]
pub fn admit(hash: u64) {
    if MEMBERS.get_ptr(&hash).is_none() {
        let _ = MEMBERS.insert(&hash, &0, BPF_NOEXIST);
    }
    match MEMBERS.get_ptr_mut(&hash) {
        // SAFETY: a map value, added to atomically.
        Some(count) => unsafe { add(count, 1) },
        None => lost(Lost::Communicators),
    }
}

#[uprobe]
pub fn nccl_end(ctx: ProbeContext) -> u32 {
    let cookie = Cookie::from_bits(cookie(ctx.as_ptr()));
    let handle = Arguments::of(&ctx).at(cookie.place(0));
    let Some(current) = current() else { return 0 };
    let key = key(current, handle);
    let Some(comm) = COMMS.get_ptr(&key) else { return 0 };
    // SAFETY: a map value, read before it is removed.
    let comm = unsafe { *comm };
    // Destroyed once, whoever says it how often.
    if COMMS.remove(&key).is_err() {
        return 0;
    }
    let Comm { hash, rank, ranks, .. } = comm;
    tell(current, Told::Ended, Record { call: cookie.function.into(), hash, rank, ranks, ..Record::default() });
    if rank != UNKNOWN
        && let Some(count) = MEMBERS.get_ptr_mut(&hash)
    {
        // SAFETY: a map value, added to atomically.
        unsafe { add(count, u64::MAX) };
    }
    0
}

#[uprobe]
pub fn nccl_ask_enter(ctx: ProbeContext) -> u32 {
    let cookie = Cookie::from_bits(cookie(ctx.as_ptr()));
    let arguments = Arguments::of(&ctx);
    let question = Question { comm: arguments.at(cookie.place(0)), out: arguments.at(cookie.place(1)) };
    let Some(current) = current() else { return 0 };
    called_only(current, cookie.function);
    let key = QuestionKey { pid_tgid: current.pid_tgid, function: cookie.function.into() };
    let _ = ASKED.insert(&key, &question, 0);
    0
}

#[uretprobe]
pub fn nccl_ask_return(ctx: RetProbeContext) -> u32 {
    let cookie = Cookie::from_bits(cookie(ctx.as_ptr()));
    let Some(current) = current() else { return 0 };
    let key = QuestionKey { pid_tgid: current.pid_tgid, function: cookie.function.into() };
    let Some(question) = ASKED.get_ptr(&key) else { return 0 };
    // SAFETY: a map value, read before it is removed.
    let Question { comm: handle, out } = unsafe { *question };
    let _ = ASKED.remove(&key);
    let result: u32 = ctx.ret();
    if result != 0 || handle == 0 {
        return 0;
    }
    let Some(answer) = user_u32(out) else { return 0 };
    // From before our time; but NCCL also asks what went wrong with one that it ends, of which nothing more is to be said.
    if cookie.action != TELL_ERROR && find(current, handle).is_none() {
        begin(current, handle, &Comm::UNKNOWN);
    }
    let Some(comm) = find(current, handle) else { return 0 };
    // SAFETY: a map value; its process may not use it from two threads at a time.
    unsafe {
        let was_known = (*comm).rank != UNKNOWN;
        match cookie.action {
            TELL_ERROR => goes_wrong(current, comm, if answer == IN_PROGRESS { 0 } else { answer }),
            // What follows of what all asked for was not read from the caller's memory; this is.
            TELL_RANK if !was_known => (*comm).rank = answer,
            TELL_RANKS if (*comm).ranks == UNKNOWN => (*comm).ranks = answer,
            _ => {}
        }
        // What lies is not believed.
        if (*comm).rank >= (*comm).ranks {
            (*comm).rank = UNKNOWN;
        }
        if !was_known && (*comm).rank != UNKNOWN && (*comm).hash != 0 {
            admit((*comm).hash);
        }
    }
    0
}

/// Each result is told once of a communicator: a process may ask as often as it likes.
///
/// SAFETY: `comm` is a map value.
#[inline(always)]
unsafe fn goes_wrong(current: Current, comm: *mut Comm, result: u32) {
    // SAFETY: by the caller's promise.
    unsafe {
        (*comm).error = result;
        let one = 1_u32 << (result & 31);
        if result == 0 || (*comm).told_errors & one != 0 {
            return;
        }
        (*comm).told_errors |= one;
        let Comm { hash, rank, ranks, .. } = *comm;
        tell(current, Told::Error, Record { result, hash, rank, ranks, ..Record::default() });
    }
}

const TELL_ERROR: u8 = Action::TellError as u8;
const TELL_RANK: u8 = Action::TellRank as u8;
const TELL_RANKS: u8 = Action::TellRanks as u8;
