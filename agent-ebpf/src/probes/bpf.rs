//! A process reached for a map, a program or a link of the daemon by `bpf(2)`: whoever changes them changes what is seen and what is
//! denied.
//!
//! `fentry/security_bpf` is asked before every command and tells of those that change; `fentry/security_bpf_map` and
//! `security_bpf_prog` before a descriptor is made, `security_mmap_file` before a map's memory is mapped. At the return of system calls both are told, once they have succeeded.
#![expect(unsafe_code, reason = "kernel edge")]

use aya_ebpf::{
    helpers::generated::bpf_get_current_pid_tgid,
    macros::{fentry, map},
    maps::HashMap,
    programs::FEntryContext,
};
use plumbline_ebpf::{
    bpf::{BpfAccess, KIND_BPF, OBJECT_CHANGE, OBJECT_LINK, OBJECT_MAP, OBJECT_OPEN, OBJECT_PROGRAM, OBJECTS, Object},
    program::BPF,
};

use super::file_change::{MAP_SHARED, PROT_WRITE};
use crate::{
    emit::{self, Lane},
    files,
    kernel::{off, read, read_into, user_u32},
    limit,
    syscall::Call,
    task,
};

/// The agent's own, filled when it has loaded them.
#[map]
static OWN_OBJECTS: HashMap<Object, u32> = HashMap::with_max_entries(OBJECTS, 0);

/// include/uapi/linux/bpf.h, `enum bpf_cmd`
mod command {
    pub const MAP_UPDATE_ELEM: u32 = 2;
    pub const MAP_DELETE_ELEM: u32 = 3;
    pub const PROG_GET_FD_BY_ID: u32 = 13;
    pub const MAP_GET_FD_BY_ID: u32 = 14;
    pub const MAP_LOOKUP_AND_DELETE_ELEM: u32 = 21;
    pub const MAP_FREEZE: u32 = 22;
    pub const MAP_LOOKUP_AND_DELETE_BATCH: u32 = 25;
    pub const MAP_UPDATE_BATCH: u32 = 26;
    pub const MAP_DELETE_BATCH: u32 = 27;
    pub const LINK_UPDATE: u32 = 29;
    pub const LINK_GET_FD_BY_ID: u32 = 30;
    pub const LINK_DETACH: u32 = 34;
}

/// `union bpf_attr`: descriptors of maps and links are its first word; of a batch the map's is behind three addresses, an
/// address and a count.
const BATCH_MAP_FD: u32 = 36;

/// `security_bpf(int cmd, union bpf_attr *attr, unsigned int size)`: the attributes are the kernel's copy.
#[fentry(function = "security_bpf")]
pub fn bpf_change_fentry(ctx: FEntryContext) -> i32 {
    let (command, attributes): (u32, u64) = (ctx.arg(0), ctx.arg(1));
    if !is_own_doing() {
        change(command, read(attributes, 0), read(attributes, BATCH_MAP_FD));
    }
    0
}

/// `security_bpf_map(struct bpf_map *map, fmode_t fmode)`
#[fentry(function = "security_bpf_map")]
pub fn bpf_map_fentry(ctx: FEntryContext) -> i32 {
    if !is_own_doing() {
        tell_of_map(ctx.arg(0), OBJECT_OPEN);
    }
    0
}

/// `security_bpf_prog(struct bpf_prog *prog)`
#[fentry(function = "security_bpf_prog")]
pub fn bpf_program_fentry(ctx: FEntryContext) -> i32 {
    if !is_own_doing() {
        tell_of_program(ctx.arg(0), OBJECT_OPEN);
    }
    0
}

/// `security_mmap_file(struct file *file, unsigned long prot, unsigned long flags)`
#[fentry(function = "security_mmap_file")]
pub fn bpf_mapped_fentry(ctx: FEntryContext) -> i32 {
    let (file, protection, flags): (u64, u64, u64) = (ctx.arg(0), ctx.arg(1), ctx.arg(2));
    if file != 0 && protection & PROT_WRITE != 0 && flags & MAP_SHARED != 0 {
        mapped_writable(file);
    }
    0
}

/// A `bpf(2)` that succeeded.
#[inline(always)]
pub fn at_return(call: Call, returned: u64) {
    if is_own_doing() {
        return;
    }
    let (command, attributes) = (call.arg0() as u32, call.arg1());
    match command {
        command::MAP_GET_FD_BY_ID => tell_of_map(behind(returned as u32), OBJECT_OPEN),
        command::PROG_GET_FD_BY_ID => tell_of_program(behind(returned as u32), OBJECT_OPEN),
        command::LINK_GET_FD_BY_ID => tell_of_link(behind(returned as u32), OBJECT_OPEN),
        _ => {
            change(command, user_u32(attributes), user_u32(attributes.wrapping_add(u64::from(BATCH_MAP_FD))));
        }
    }
}

#[inline(always)]
fn change(command: u32, first: u32, batch_map: u32) {
    match command {
        command::MAP_UPDATE_ELEM
        | command::MAP_DELETE_ELEM
        | command::MAP_LOOKUP_AND_DELETE_ELEM
        | command::MAP_FREEZE => tell_of_map(behind(first), OBJECT_CHANGE),
        command::MAP_UPDATE_BATCH | command::MAP_DELETE_BATCH | command::MAP_LOOKUP_AND_DELETE_BATCH => {
            tell_of_map(behind(batch_map), OBJECT_CHANGE);
        }
        command::LINK_UPDATE | command::LINK_DETACH => tell_of_link(behind(first), OBJECT_CHANGE),
        _ => {}
    }
}

#[inline(always)]
fn is_own_doing() -> bool {
    // SAFETY: the helper has no preconditions.
    let pid = (unsafe { bpf_get_current_pid_tgid() } >> 32) as u32;
    files::control().is_none_or(|control| control.own_pid == pid)
}

/// What a descriptor of the current task leads to: `struct bpf_map`, `bpf_prog` or `bpf_link`.
#[inline(always)]
fn behind(descriptor: u32) -> u64 {
    read(task::file(u64::from(descriptor)), off!(file_private_data))
}

#[inline(always)]
fn tell_of_map(map: u64, how: u32) {
    let object = Object { kind: OBJECT_MAP, id: read(map, off!(bpf_map_id)) };
    tell(object, how, map.wrapping_add(u64::from(off!(bpf_map_name))));
}

#[inline(always)]
fn tell_of_link(link: u64, how: u32) {
    // By the name of its program, which an update has changed by the time that it returns.
    let program: u64 = read(link, off!(bpf_link_prog));
    let aux: u64 = read(program, off!(bpf_prog_aux));
    let object = Object { kind: OBJECT_LINK, id: read(link, off!(bpf_link_id)) };
    tell(object, how, aux.wrapping_add(u64::from(off!(bpf_prog_aux_name))));
}

#[inline(always)]
fn tell_of_program(program: u64, how: u32) {
    let aux: u64 = read(program, off!(bpf_prog_aux));
    let object = Object { kind: OBJECT_PROGRAM, id: read(aux, off!(bpf_prog_aux_id)) };
    tell(object, how, aux.wrapping_add(u64::from(off!(bpf_prog_aux_name))));
}

/// A file is mapped so that what is written to it is shared: a map's memory, perhaps.
#[inline(always)]
pub fn mapped_writable(file: u64) {
    if !is_own_doing() {
        tell_of_map(read(file, off!(file_private_data)), OBJECT_CHANGE);
    }
}

#[inline(always)]
fn tell(object: Object, how: u32, name: u64) {
    // A flood of looks must not hide a change.
    if OWN_OBJECTS.get_ptr(&object).is_none() || (how == OBJECT_OPEN && !limit::admits(BPF)) {
        return;
    }
    emit::record(Lane::Events, BPF, |record: *mut BpfAccess| {
        // SAFETY: a ring reservation of this size.
        unsafe {
            emit::stamp(&raw mut (*record).header, KIND_BPF, BPF, task::current());
            (*record).object = object;
            (*record).how = how;
            (*record).reserved = 0;
            read_into(&raw mut (*record).name, name, 0);
        }
    });
}
