//! Device nodes, and ways to the weights, or out of the node, that pass no watched file and no socket; and ways to the daemon
//! itself. They are told when
//! they are opened; what goes through them is not seen.

/// A device node was opened that leads to a GPU, or around the watched files and sockets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceOpen {
    pub kind: DeviceKind,
    pub path: Vec<u8>,
    /// `inode.i_rdev`, the kernel's encoding.
    pub device: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeviceKind {
    /// The disk that watched files lie on, read below its file system.
    BlockDevice,
    /// RDMA verbs or GPUDirect Storage: transfers that the kernel's sockets and files do not carry.
    BypassDevice,
    /// A GPU's own: whoever has it open can use the GPU, and read memory that is not cleared.
    GpuDevice,
}

impl DeviceKind {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::BlockDevice => "block_device",
            Self::BypassDevice => "bypass_device",
            Self::GpuDevice => "gpu_device",
        }
    }
}

/// A process reached into the memory of one that has read watched files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemoryAccess {
    pub target_pid: u32,
    /// When the other process started; `None` where its number is all that the kernel program knew.
    pub target_start_boot_ns: Option<u64>,
    pub how: MemoryHow,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MemoryHow {
    /// By whatever call: it asked for the rights of a debugger.
    Attach,
    /// `process_vm_readv(2)`
    VmRead,
    /// `ptrace(2)`
    Ptrace,
    /// `/proc/PID/mem` was opened.
    ProcMem,
}

impl MemoryHow {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Attach => "attach",
            Self::VmRead => "process_vm_readv",
            Self::Ptrace => "ptrace",
            Self::ProcMem => "proc_mem",
        }
    }
}

/// A process reached for a map, a program or a link of the daemon's own by `bpf(2)`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BpfAccess {
    pub kind: BpfKind,
    /// The kernel's number of it.
    pub id: u32,
    /// As the kernel has it: of what is long, the first 15 bytes; a link's is its program's.
    pub name: Vec<u8>,
    pub how: BpfHow,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BpfKind {
    Map,
    Program,
    Link,
}

impl BpfKind {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Map => "map",
            Self::Program => "program",
            Self::Link => "link",
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BpfHow {
    /// A descriptor of it was got by its number.
    Open,
    /// What it holds was changed, or it was taken away.
    Change,
}

impl BpfHow {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Change => "change",
        }
    }
}
