//! Who a task is: the part of every record that comes from `task_struct`.
#![expect(unsafe_code, reason = "kernel edge: writes into ring reservations and map values")]

use aya_ebpf::helpers::generated::bpf_get_current_task;
use plumbline_ebpf::record::{Header, NetNs};

use crate::kernel::{off, read, read_into};

/// The current task's address.
#[inline(always)]
pub fn current() -> u64 {
    // SAFETY: the helper has no preconditions.
    unsafe { bpf_get_current_task() }
}

/// The `struct file *` behind a descriptor of the current task; 0 where there is none.
#[inline(always)]
pub fn file(descriptor: u64) -> u64 {
    let files: u64 = read(current(), off!(task_files));
    let table: u64 = read(files, off!(files_fdt));
    let max: u32 = read(table, off!(fdtable_max_fds));
    if descriptor >= u64::from(max) {
        return 0;
    }
    let array: u64 = read(table, off!(fdtable_fd));
    read(array.wrapping_add(descriptor * 8), 0)
}

/// `kernfs_node.id` of the task's cgroup in the default (v2) hierarchy.
#[inline(always)]
pub fn cgroup_id(task: u64) -> u64 {
    let css_set: u64 = read(task, off!(task_cgroups));
    let cgroup: u64 = read(css_set, off!(css_set_dfl_cgrp));
    let kernfs_node: u64 = read(cgroup, off!(cgroup_kn));
    read(kernfs_node, off!(kernfs_node_id))
}

/// The current task's network namespace: a `struct net *`.
#[inline(always)]
pub fn net() -> u64 {
    let nsproxy: u64 = read(current(), off!(task_nsproxy));
    read(nsproxy, off!(nsproxy_net_ns))
}

/// What names a `struct net *`.
#[inline(always)]
pub fn net_ns(net: u64) -> NetNs {
    NetNs { inum: read(net, off!(net_ns_inum)), mix: read(net, off!(net_hash_mix)) }
}

/// Fills pid, parent, credentials, cgroup, namespaces and name of `task`.
#[inline(always)]
pub fn describe(header: *mut Header, task: u64) {
    let leader: u64 = read(task, off!(task_group_leader));
    let parent: u64 = read(task, off!(task_real_parent));
    let cred: u64 = read(task, off!(task_cred));
    let nsproxy: u64 = read(task, off!(task_nsproxy));
    let mnt_ns: u64 = read(nsproxy, off!(nsproxy_mnt_ns));
    let net_ns: u64 = read(nsproxy, off!(nsproxy_net_ns));
    // SAFETY: `header` points into a ring reservation or a map value of the caller.
    unsafe {
        (*header).pid = read(task, off!(task_tgid));
        (*header).tid = read(task, off!(task_pid));
        (*header).ppid = read(parent, off!(task_tgid));
        (*header).start_boot_ns = read(leader, off!(task_start_boottime));
        (*header).uid = read(cred, off!(cred_uid));
        (*header).gid = read(cred, off!(cred_gid));
        (*header).cgroup_id = cgroup_id(task);
        (*header).mnt_ns = read(mnt_ns, off!(mnt_ns_inum));
        (*header).net_ns = read(net_ns, off!(net_ns_inum));
        (*header).pid_ns = pid_namespace(task);
        read_into(&raw mut (*header).comm, task, off!(task_comm));
    }
}

/// The task's active pid namespace: `thread_pid->numbers[level].ns` (include/linux/pid.h).
#[inline(always)]
fn pid_namespace(task: u64) -> u32 {
    let pid: u64 = read(task, off!(task_thread_pid));
    let level: u32 = read(pid, off!(pid_level));
    // `ns` is the last member of `struct upid`, a pointer: the entry ends behind it.
    let upid_bytes = off!(upid_ns).wrapping_add(8);
    let entry = pid.wrapping_add(u64::from(off!(pid_numbers))).wrapping_add(u64::from(level.wrapping_mul(upid_bytes)));
    let namespace: u64 = read(entry, off!(upid_ns));
    read(namespace, off!(pid_ns_inum))
}
