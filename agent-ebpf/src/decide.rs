//! Whether what the current task is about to do is denied: a few lookups, whatever the number of rules.
//!
//! Never denied: the daemon, pid 1, and threads of the kernel. What is missing from a table leaves nothing of the rules, so a
//! half-filled generation denies too little and never too much; the agent fills one before it is in force.
#![expect(unsafe_code, reason = "kernel edge: map values are raw pointers")]

use core::mem::MaybeUninit;

use aya_ebpf::{
    bindings::{BPF_F_MMAPABLE, BPF_F_NO_PREALLOC},
    helpers::generated::bpf_get_current_pid_tgid,
    macros::map,
    maps::{Array, HashMap, LpmTrie, lpm_trie::Key},
};
use plumbline_ebpf::{
    deny::{
        ADDRESSES, AddressKey, Block, BlockKey, CgroupKey, Class, DIRECTORIES, DirectoryKey, LANES, MAX_CGROUP_DEPTH,
        NARROW_BLOCKS, OTHER_USER, PORTS, PortKey, ProgramKey, USERS, UserKey, WIDE_BLOCKS, WORDS,
    },
    record::{FileId, WatchedFile},
};

use crate::{
    files,
    kernel::{self, off, read},
    peer::{AF_INET, AF_INET6, IPPROTO_TCP, IPPROTO_UDP, Peer},
    task,
};

/// The generation in force: the agent stores it with one instruction, through a mapping of the page.
#[map]
static DENY_GENERATION: Array<u32> = Array::with_max_entries(1, BPF_F_MMAPABLE);

#[map]
static DENY_BLOCKS: HashMap<BlockKey, Block> = HashMap::with_max_entries(16_384, BPF_F_NO_PREALLOC);

#[map]
static DENY_USERS: HashMap<UserKey, Class> = HashMap::with_max_entries(USERS, BPF_F_NO_PREALLOC);

#[map]
static DENY_CGROUPS: HashMap<CgroupKey, Class> = HashMap::with_max_entries(32_768, BPF_F_NO_PREALLOC);

#[map]
static DENY_PROGRAMS: HashMap<ProgramKey, Class> = HashMap::with_max_entries(16_384, BPF_F_NO_PREALLOC);

#[map]
static DENY_DIRECTORIES: HashMap<DirectoryKey, Class> = HashMap::with_max_entries(DIRECTORIES, BPF_F_NO_PREALLOC);

#[map]
static DENY_ADDRESSES: LpmTrie<AddressKey, Class> = LpmTrie::with_max_entries(ADDRESSES, 0);

#[map]
static DENY_PORTS: LpmTrie<PortKey, Class> = LpmTrie::with_max_entries(PORTS, 0);

/// What a security hook answers: `-EPERM` (include/uapi/asm-generic/errno-base.h) or 0.
///
/// By a branch with something in it: of a number that was negated the verifier of 6.12 does not know that it is one of the two.
#[inline(always)]
pub fn answer(is_denied: bool) -> i32 {
    if is_denied {
        core::hint::black_box(0u8);
        return -1;
    }
    0
}

/// `IPPROTO_MPTCP` (include/uapi/linux/in.h): to rules it is TCP.
const IPPROTO_MPTCP: u32 = 262;

/// The generation in force; 0 before there is one.
#[inline(always)]
pub fn generation() -> u32 {
    match DENY_GENERATION.get_ptr(0) {
        // SAFETY: a map value; volatile, since the agent changes it.
        Some(generation) => unsafe { core::ptr::read_volatile(generation) },
        None => 0,
    }
}

/// What was decided, and by which policies: those in force may be others by the time that it is told.
#[derive(Clone, Copy)]
pub struct Decision {
    pub generation: u32,
    /// The number behind the rule that denies; 0 for none.
    pub denied: u32,
}

impl Decision {
    /// Where nothing can be denied.
    #[inline(always)]
    pub fn none() -> Self {
        Self { generation: generation(), denied: 0 }
    }
}

/// Whether the current task may open this file below this directory.
#[inline(always)]
pub fn open(id: &FileId, watch: &WatchedFile) -> Decision {
    let generation = generation();
    Decision { generation, denied: open_in(generation, id, watch) }
}

/// A file that lies below several has an entry of its own.
#[inline(always)]
fn open_in(generation: u32, id: &FileId, watch: &WatchedFile) -> u32 {
    let own = of_directory(generation, id.dev, id.ino);
    let Some(directory) = own.or_else(|| of_directory(generation, watch.watched_dev, watch.watched_ino)) else {
        return 0;
    };
    if is_spared() {
        return 0;
    }
    let Some([place, program, user]) = subject(generation) else { return 0 };
    first(generation, &[directory, place, program, user])
}

/// Whether the current task may connect, or send a datagram, to this address.
#[inline(always)]
pub fn connection(protocol: u32, peer: &Peer) -> Decision {
    let generation = generation();
    Decision { generation, denied: connection_in(generation, protocol, peer) }
}

#[inline(always)]
fn connection_in(generation: u32, protocol: u32, peer: &Peer) -> u32 {
    let protocol = if protocol == IPPROTO_MPTCP { IPPROTO_TCP } else { protocol };
    if (protocol != IPPROTO_TCP && protocol != IPPROTO_UDP) || (peer.family != AF_INET && peer.family != AF_INET6) {
        return 0;
    }
    // Whichever family and protocol it was: what follows is followed once.
    let (protocol, address) = (kernel::any(&protocol), kernel::any(&mapped(peer)));
    let Some(address) = of_address(generation, address) else { return 0 };
    if is_spared() {
        return 0;
    }
    let Some(port) = of_port(generation, protocol as u16, peer.port.to_ne_bytes()) else { return 0 };
    let Some([place, program, user]) = subject(generation) else { return 0 };
    first(generation, &[address, port, place, program, user])
}

/// Who must not be stopped.
#[inline(always)]
fn is_spared() -> bool {
    // SAFETY: the helper has no preconditions.
    let pid = (unsafe { bpf_get_current_pid_tgid() } >> 32) as u32;
    let own_pid = match files::control() {
        Some(control) => control.own_pid,
        None => 0,
    };
    // A thread of the kernel has no memory of its own.
    pid == 1 || pid == own_pid || read::<u64>(task::current(), off!(task_mm)) == 0
}

/// An entry of a table, which an update replaces and never changes.
type Entry = &'static Class;

/// By the current task's cgroup, executable and user.
#[inline(always)]
fn subject(generation: u32) -> Option<[Entry; 3]> {
    let task = task::current();
    let mm: u64 = read(task, off!(task_mm));
    let file: u64 = read(mm, off!(mm_exe_file));
    let inode: u64 = read(file, off!(file_inode));
    let id = files::id(inode);
    let cred: u64 = read(task, off!(task_cred));
    Some([
        of_cgroup(generation, task)?,
        of_program(generation, id.dev, id.ino, read(inode, off!(inode_generation)))?,
        of_user(generation, read(cred, off!(cred_uid)))?,
    ])
}

#[inline(always)]
pub fn of_user(generation: u32, uid: u32) -> Option<Entry> {
    get(&DENY_USERS, &UserKey { generation, uid })
        .or_else(|| get(&DENY_USERS, &UserKey { generation, uid: OTHER_USER }))
}

#[inline(always)]
pub fn of_program(generation: u32, dev: u32, ino: u64, inode_generation: u32) -> Option<Entry> {
    let other = ProgramKey { ino: kernel::zero(), dev: 0, inode_generation: 0, generation, reserved: 0 };
    get(&DENY_PROGRAMS, &ProgramKey { ino, dev, inode_generation, generation, reserved: 0 })
        .or_else(|| get(&DENY_PROGRAMS, &other))
}

#[inline(always)]
pub fn of_directory(generation: u32, dev: u32, ino: u64) -> Option<Entry> {
    get(&DENY_DIRECTORIES, &DirectoryKey { ino, dev, generation })
}

/// Of the task's cgroup, or of the nearest one above it that is known: one that was made just now is as the one that it is
/// made in.
#[inline(always)]
fn of_cgroup(generation: u32, task: u64) -> Option<Entry> {
    let css_set: u64 = read(task, off!(task_cgroups));
    let mut cgroup: u64 = read(css_set, off!(css_set_dfl_cgrp));
    for _ in 0..MAX_CGROUP_DEPTH {
        let kernfs_node: u64 = read(cgroup, off!(cgroup_kn));
        let known = by_cgroup(generation, read(kernfs_node, off!(kernfs_node_id)));
        if known.is_some() {
            return known;
        }
        let above: u64 = read(cgroup.wrapping_add(u64::from(off!(cgroup_self))), off!(css_parent));
        if above == 0 {
            break;
        }
        cgroup = above.wrapping_sub(u64::from(off!(cgroup_self)));
    }
    by_cgroup(generation, 0)
}

#[inline(always)]
pub fn by_cgroup(generation: u32, id: u64) -> Option<Entry> {
    get(&DENY_CGROUPS, &CgroupKey { id, generation, reserved: 0 })
}

/// By reference: a copy is a call of a function, and of programs that call any kernels before 6.2 track more than they can
/// hold.
#[inline(always)]
fn get<K>(map: &HashMap<K, Class>, key: &K) -> Option<Entry> {
    // SAFETY: an entry that was found stays until the program ends (RCU), and nothing writes to it.
    map.get_ptr(key).map(|class| unsafe { &*class })
}

#[inline(always)]
pub fn of_address(generation: u32, address: [u8; 16]) -> Option<Entry> {
    DENY_ADDRESSES.get(Key::new(AddressKey::BITS, AddressKey { generation, address }))
}

/// `port` as the wire has it.
#[inline(always)]
pub fn of_port(generation: u32, protocol: u16, port: [u8; 2]) -> Option<Entry> {
    DENY_PORTS.get(Key::new(PortKey::BITS, PortKey { generation, protocol, port }))
}

/// The address as the trie has it. To connect to no address is to connect to this host (net/ipv4/route.c and
/// net/ipv6/tcp_ipv6.c).
#[inline(always)]
fn mapped(peer: &Peer) -> [u8; 16] {
    let v4_head = u32::from_ne_bytes([0, 0, 0xff, 0xff]);
    let v4_loopback = u32::from_ne_bytes([127, 0, 0, 1]);
    let [a, b, c, d] = peer.address;
    let words = if peer.family == AF_INET {
        [0, 0, v4_head, if a == 0 { v4_loopback } else { a }]
    } else if a | b | c | d == 0 {
        [0, 0, 0, u32::from_ne_bytes([0, 0, 0, 1])]
    } else if a | b == 0 && c == v4_head && d == 0 {
        [0, 0, v4_head, v4_loopback]
    } else {
        [a, b, c, d]
    };
    // SAFETY: both are 16 bytes of plain integers.
    unsafe { core::mem::transmute::<[u32; 4], [u8; 16]>(words) }
}

/// The first lane that denies, counted from 1; 0 for none.
///
/// Blocks and words are found by their lowest bits and not by counting, so that to the verifier their numbers are any: it
/// need not follow what comes after once for each.
#[inline(always)]
pub fn first<const N: usize>(generation: u32, classes: &[Entry; N]) -> u32 {
    let mut blocks = u64::MAX;
    for class in classes {
        blocks &= class.blocks;
    }
    for _ in 0..NARROW_BLOCKS + WIDE_BLOCKS {
        if blocks == 0 {
            break;
        }
        let lane = first_of_block(generation, blocks.trailing_zeros(), classes);
        if lane != 0 {
            return lane;
        }
        blocks &= blocks - 1;
    }
    0
}

#[inline(always)]
fn first_of_block<const N: usize>(generation: u32, number: u32, classes: &[Entry; N]) -> u32 {
    let mut found = [const { MaybeUninit::<*const Block>::uninit() }; N];
    let mut live = u64::MAX;
    for (class, found) in classes.iter().zip(&mut found) {
        let key = BlockKey { generation, class: class.number, block: number };
        let Some(block) = DENY_BLOCKS.get_ptr(&key) else { return 0 };
        found.write(block);
        // SAFETY: a map value.
        live &= unsafe { (*block).live };
    }
    for _ in 0..WORDS {
        if live == 0 {
            break;
        }
        // The compiler knows that it is less and would leave the mask out, by which the verifier knows.
        let word = core::hint::black_box(live.trailing_zeros()) & (WORDS as u32 - 1);
        let mut left = u64::MAX;
        for block in &found {
            // SAFETY: each was written above, and is a map value; `word` is one of its words.
            left &= unsafe { (*block.assume_init()).words[word as usize] };
        }
        if number < NARROW_BLOCKS as u32 {
            let denying = narrow(left);
            if denying != 0 {
                return (number * WORDS as u32 + word) * LANES as u32 + denying.trailing_zeros() / 8 + 1;
            }
        } else if left == 1 {
            let before = (NARROW_BLOCKS * WORDS * LANES) as u32;
            return before + (number - NARROW_BLOCKS as u32) * WORDS as u32 + word + 1;
        }
        live &= live - 1;
    }
    0
}

/// The lowest bit of each byte that is 1. Of its upper seven bits the sum with 127 has the highest bit if one is set, and no
/// carry leaves the byte.
#[inline(always)]
fn narrow(lanes: u64) -> u64 {
    const LOWEST: u64 = 0x0101_0101_0101_0101;
    const REST: u64 = 0x7f7f_7f7f_7f7f_7f7f;
    let excused = ((lanes >> 1) & REST).wrapping_add(REST);
    lanes & LOWEST & !(excused >> 7)
}
