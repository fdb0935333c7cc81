//! Programs that do nothing: what is left when one is attached is the cost of being stopped.

use aya_ebpf::{
    macros::{uprobe, uretprobe},
    programs::{ProbeContext, RetProbeContext},
};

#[uprobe]
pub fn nothing(_: ProbeContext) -> u32 {
    0
}

#[uretprobe]
pub fn nothing_return(_: RetProbeContext) -> u32 {
    0
}
