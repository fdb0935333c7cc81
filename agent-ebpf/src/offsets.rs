//! The kernel fields that the programs read, and the read-only global that carries their offsets.
//!
//! rustc emits no CO-RE relocations, so nothing about the kernel's layout is baked into the object: the agent looks
//! every field of [`FIELDS`] up in `/sys/kernel/btf/vmlinux` and passes the offsets as `.rodata`. A field that the
//! running kernel lacks makes the programs of its [`Group`] unavailable, by name.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Which programs need the field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Group {
    /// Every program: who is the current task.
    Task,
    /// Programs that read an open file and spell its path.
    File,
    /// Programs that start from a system call's return.
    Syscall,
    /// Programs that read a socket.
    Socket,
    /// Programs that deny.
    Deny,
    /// Programs that read a local socket.
    Local,
    /// Programs that read a packet.
    Packet,
    /// Programs that read the pieces of a packet that lie in pages of their own.
    Pages,
    /// Programs at page faults, by function.
    Fault,
    /// Programs that start from a page cache.
    Mapping,
    /// Programs that know a kernel object of `bpf(2)`.
    Bpf,
    /// The io_uring program.
    IoUring,
    /// The exec program.
    Exec,
    /// Fields that some kernels lack; no program depends on them.
    Optional,
    /// The exit program.
    Exit,
}

/// One field: where it is looked up, first hit wins (kernels rename).
#[derive(Clone, Copy, Debug)]
pub struct Field {
    pub name: &'static str,
    pub group: Group,
    /// `(struct, member path)`; the path descends by dots and through anonymous members.
    pub spellings: &'static [(&'static str, &'static str)],
}

macro_rules! offsets {
    ($($name:ident : $group:ident [$(($of:literal, $path:literal)),+];)*) => {
        /// Byte offsets, in the order of [`FIELDS`]. [`UNKNOWN`] marks a field that the kernel lacks.
        #[repr(C)]
        #[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
        pub struct Offsets { $(pub $name: u32,)* }

        impl Offsets {
            /// Before resolution: nothing is known.
            pub const NONE: Self = Self { $($name: UNKNOWN,)* };
        }

        /// Every field, in the order of [`Offsets`].
        pub const FIELDS: &[Field] = &[
            $(Field { name: stringify!($name), group: Group::$group, spellings: &[$(($of, $path)),+] },)*
        ];
    };
}

/// No such field in this kernel.
pub const UNKNOWN: u32 = u32::MAX;

offsets! {
    task_pid: Task [("task_struct", "pid")];
    task_tgid: Task [("task_struct", "tgid")];
    task_real_parent: Task [("task_struct", "real_parent")];
    task_group_leader: Task [("task_struct", "group_leader")];
    task_start_boottime: Task [("task_struct", "start_boottime"), ("task_struct", "real_start_time")];
    task_comm: Task [("task_struct", "comm")];
    task_cred: Task [("task_struct", "cred")];
    task_nsproxy: Task [("task_struct", "nsproxy")];
    task_cgroups: Task [("task_struct", "cgroups")];
    task_mm: Task [("task_struct", "mm")];
    task_thread_pid: Task [("task_struct", "thread_pid")];
    cred_uid: Task [("cred", "uid")];
    cred_gid: Task [("cred", "gid")];
    css_set_dfl_cgrp: Task [("css_set", "dfl_cgrp")];
    cgroup_kn: Task [("cgroup", "kn")];
    kernfs_node_id: Task [("kernfs_node", "id")];
    nsproxy_mnt_ns: Task [("nsproxy", "mnt_ns")];
    nsproxy_net_ns: Task [("nsproxy", "net_ns")];
    mnt_ns_inum: Task [("mnt_namespace", "ns.inum")];
    net_hash_mix: Task [("net", "hash_mix")];
    net_ns_inum: Task [("net", "ns.inum")];
    pid_ns_inum: Task [("pid_namespace", "ns.inum")];
    pid_level: Task [("pid", "level")];
    pid_numbers: Task [("pid", "numbers")];
    upid_ns: Task [("upid", "ns")];
    // `numbers[level]` needs the size of one entry; `ns` is its last member, a pointer.

    task_files: Syscall [("task_struct", "files")];
    files_fdt: Syscall [("files_struct", "fdt")];
    fdtable_max_fds: Syscall [("fdtable", "max_fds")];
    fdtable_fd: Syscall [("fdtable", "fd")];
    file_private_data: Syscall [("file", "private_data")];
    regs_syscall: Syscall [("pt_regs", "orig_ax"), ("pt_regs", "syscallno")];

    bpf_map_id: Bpf [("bpf_map", "id")];
    bpf_map_name: Bpf [("bpf_map", "name")];
    bpf_prog_aux: Bpf [("bpf_prog", "aux")];
    bpf_prog_aux_id: Bpf [("bpf_prog_aux", "id")];
    bpf_prog_aux_name: Bpf [("bpf_prog_aux", "name")];
    bpf_link_prog: Bpf [("bpf_link", "prog")];
    bpf_link_id: Bpf [("bpf_link", "id")];

    // arm64 keeps arguments 1 to 7 in an array, of which `regs` is the start.
    regs_arg0: Syscall [("pt_regs", "di"), ("pt_regs", "orig_x0")];
    regs_arg1: Syscall [("pt_regs", "si"), ("pt_regs", "regs")];
    regs_arg2: Syscall [("pt_regs", "dx"), ("pt_regs", "regs")];
    regs_arg3: Syscall [("pt_regs", "r10"), ("pt_regs", "regs")];
    regs_arg4: Syscall [("pt_regs", "r8"), ("pt_regs", "regs")];
    regs_arg5: Syscall [("pt_regs", "r9"), ("pt_regs", "regs")];
    // Where the 32-bit calls of x86-64 have their first and fifth argument.
    regs_bx: Syscall [("pt_regs", "bx"), ("pt_regs", "regs")];
    regs_di: Syscall [("pt_regs", "di"), ("pt_regs", "regs")];
    // Where a task says that it is in a 32-bit system call.
    task_status: Syscall [("task_struct", "thread_info.status"), ("task_struct", "thread_info.flags")];

    file_path_mnt: File [("file", "f_path.mnt")];
    file_path_dentry: File [("file", "f_path.dentry")];
    file_inode: File [("file", "f_inode")];
    file_flags: File [("file", "f_flags")];
    file_pos: File [("file", "f_pos")];
    dentry_parent: File [("dentry", "d_parent")];
    dentry_inode: File [("dentry", "d_inode")];
    dentry_name: File [("dentry", "d_name.name"), ("dentry", "__d_name.name")];
    vfsmount_root: File [("vfsmount", "mnt_root")];
    mount_vfsmount: File [("mount", "mnt")];
    mount_parent: File [("mount", "mnt_parent")];
    mount_mnt_ns: File [("mount", "mnt_ns")];
    mount_mountpoint: File [("mount", "mnt_mountpoint")];
    inode_ino: File [("inode", "i_ino")];
    inode_sb: File [("inode", "i_sb")];
    inode_mode: File [("inode", "i_mode")];
    inode_size: File [("inode", "i_size")];
    inode_nlink: File [("inode", "i_nlink")];
    inode_generation: File [("inode", "i_generation")];
    inode_rdev: File [("inode", "i_rdev")];
    super_block_dev: File [("super_block", "s_dev")];
    super_block_magic: File [("super_block", "s_magic")];

    vm_fault_vma: Fault [("vm_fault", "vma")];
    vm_fault_pgoff: Fault [("vm_fault", "pgoff")];
    vma_start: Fault [("vm_area_struct", "vm_start")];
    vma_end: Fault [("vm_area_struct", "vm_end")];
    vma_pgoff: Fault [("vm_area_struct", "vm_pgoff")];
    vma_file: Fault [("vm_area_struct", "vm_file")];
    file_mapping: Fault [("file", "f_mapping")];
    mapping_host: Mapping [("address_space", "host")];
    mapping_pages_head: Mapping [("address_space", "i_pages.xa_head")];
    xa_node_shift: Mapping [("xa_node", "shift")];
    xa_node_slots: Mapping [("xa_node", "slots")];

    io_kiocb_opcode: IoUring [("io_kiocb", "opcode")];
    io_kiocb_file: IoUring [("io_kiocb", "file")];
    io_kiocb_res: IoUring [("io_kiocb", "cqe.res")];
    kiocb_pos: IoUring [("kiocb", "ki_pos")];

    sock_net: Socket [("sock", "__sk_common.skc_net")];
    sock_family: Socket [("sock", "__sk_common.skc_family")];
    sock_daddr: Socket [("sock", "__sk_common.skc_daddr")];
    sock_daddr6: Socket [("sock", "__sk_common.skc_v6_daddr")];
    sock_rcv_saddr: Socket [("sock", "__sk_common.skc_rcv_saddr")];
    sock_rcv_saddr6: Socket [("sock", "__sk_common.skc_v6_rcv_saddr")];
    sock_dport: Socket [("sock", "__sk_common.skc_dport")];
    sock_protocol: Socket [("sock", "sk_protocol")];
    sock_err: Socket [("sock", "sk_err")];
    socket_sk: Socket [("socket", "sk")];
    msghdr_name: Socket [("msghdr", "msg_name")];
    tcp_bytes_sent: Socket [("tcp_sock", "bytes_sent")];
    tcp_bytes_retrans: Socket [("tcp_sock", "bytes_retrans")];
    tcp_bytes_received: Socket [("tcp_sock", "bytes_received")];

    mm_exe_file: Deny [("mm_struct", "exe_file")];
    // The parent of a cgroup is that of its own state.
    cgroup_self: Deny [("cgroup", "self")];
    css_parent: Deny [("cgroup_subsys_state", "parent")];

    sock_peer_pid: Local [("sock", "sk_peer_pid")];
    upid_number: Local [("upid", "nr")];
    unix_address: Local [("unix_sock", "addr")];
    unix_peer: Local [("unix_sock", "peer")];
    unix_address_bytes: Local [("unix_address", "len")];
    unix_address_name: Local [("unix_address", "name")];

    skb_sk: Packet [("sk_buff", "sk")];
    skb_head: Packet [("sk_buff", "head")];
    skb_data: Packet [("sk_buff", "data")];
    skb_len: Packet [("sk_buff", "len")];
    skb_data_len: Packet [("sk_buff", "data_len")];
    skb_network_header: Packet [("sk_buff", "network_header")];
    skb_end: Packet [("sk_buff", "end")];
    skb_transport_header: Packet [("sk_buff", "transport_header")];

    // A fragment was a bio_vec until 6.9.
    shared_nr_frags: Pages [("skb_shared_info", "nr_frags")];
    shared_frags: Pages [("skb_shared_info", "frags")];
    frag_page: Pages [("skb_frag", "netmem"), ("skb_frag", "bv_page"), ("bio_vec", "bv_page")];
    frag_bytes: Pages [("skb_frag", "len"), ("skb_frag", "bv_len"), ("bio_vec", "bv_len")];
    frag_start: Pages [("skb_frag", "offset"), ("skb_frag", "bv_offset"), ("bio_vec", "bv_offset")];
    skb_cb: Pages [("sk_buff", "cb")];
    tcp_rcv_nxt: Pages [("tcp_sock", "rcv_nxt")];
    msghdr_iter: Pages [("msghdr", "msg_iter")];
    iov_iter_offset: Pages [("iov_iter", "iov_offset")];
    iov_iter_vector: Pages [("iov_iter", "__iov"), ("iov_iter", "iov")];

    binprm_file: Exec [("linux_binprm", "file")];
    mm_arg_start: Exec [("mm_struct", "arg_start")];
    mm_arg_end: Exec [("mm_struct", "arg_end")];
    cred_cap_effective: Exec [("cred", "cap_effective")];
    task_loginuid: Optional [("task_struct", "loginuid")];
    task_exit_code: Exit [("task_struct", "exit_code")];
    task_signal: Exit [("task_struct", "signal")];
    signal_live: Exit [("signal_struct", "live.counter")];
}

const _: () = assert!(size_of::<Offsets>() == FIELDS.len() * size_of::<u32>());
