//! The table of calls of CUDA's driver, and of what its runtime does not ask of it. Names and arguments are those of `cuda.h` and
//! `cuda_runtime_api.h`; the driver exports older and newer forms of one function beside each other (`_v2`, and `_ptsz` and `_ptds` for the
//! stream of a thread), and a program may call any of them.

use plumbline_ebpf::cuda::{Action, Cookie, KIND_GRAPH_LAUNCH, KIND_LAUNCH};

use super::part::Part;

/// One row: what is counted together, and the functions that it is.
#[derive(Debug)]
pub struct Call {
    /// The label `call`.
    pub name: &'static str,
    pub action: Action,
    /// Kind of the handles that it allocates or frees.
    pub kind: u8,
    /// Functions, and the place of the argument that the action needs, counted from 0; for what threads count the number of the kind,
    /// below [`plumbline_ebpf::cuda::KINDS`].
    pub functions: &'static [(&'static str, u8)],
}

/// Of the same function, for the default stream of a thread.
pub const SUFFIXES: [&str; 3] = ["", "_ptsz", "_ptds"];

const fn call(name: &'static str, action: Action, functions: &'static [(&'static str, u8)]) -> Call {
    Call { name, action, kind: 0, functions }
}

/// Device pointers are of kind 0.
const PHYSICAL: u8 = 1;

/// The number of a row is the call's number in the kernel.
pub static CALLS: &[Call] = &[
    call("init", Action::Call, &[("cuInit", 0)]),
    call(
        "launch",
        Action::Launch,
        &[
            ("cuLaunchKernel", KIND_LAUNCH),
            ("cuLaunchKernelEx", KIND_LAUNCH),
            ("cuLaunchCooperativeKernel", KIND_LAUNCH),
        ],
    ),
    call("graph_launch", Action::LaunchGraph, &[("cuGraphLaunch", KIND_GRAPH_LAUNCH)]),
    call(
        "graph_instantiate",
        Action::Call,
        &[("cuGraphInstantiate_v2", 0), ("cuGraphInstantiateWithFlags", 0), ("cuGraphInstantiateWithParams", 0)],
    ),
    call("capture_begin", Action::BeginCapture, &[("cuStreamBeginCapture", 0), ("cuStreamBeginCapture_v2", 0)]),
    call("capture_end", Action::EndCapture, &[("cuStreamEndCapture", 0)]),
    call("stream_synchronize", Action::Wait, &[("cuStreamSynchronize", 0)]),
    call("context_synchronize", Action::Wait, &[("cuCtxSynchronize", 0), ("cuCtxSynchronize_v2", 0)]),
    call("event_synchronize", Action::Wait, &[("cuEventSynchronize", 0)]),
    call(
        "allocate",
        Action::Allocate,
        &[("cuMemAlloc_v2", 1), ("cuMemAllocManaged", 1), ("cuMemAllocAsync", 1), ("cuMemAllocFromPoolAsync", 1)],
    ),
    call("free", Action::Free, &[("cuMemFree_v2", 0), ("cuMemFreeAsync", 0)]),
    // Memory that is mapped where and when it is wanted is there from its creation to its release.
    Call { kind: PHYSICAL, ..call("create", Action::Allocate, &[("cuMemCreate", 1)]) },
    Call { kind: PHYSICAL, ..call("release", Action::Free, &[("cuMemRelease", 0)]) },
    call("copy_host_to_device", Action::Copy, &[("cuMemcpyHtoD_v2", 2), ("cuMemcpyHtoDAsync_v2", 2)]),
    call("copy_device_to_host", Action::Copy, &[("cuMemcpyDtoH_v2", 2), ("cuMemcpyDtoHAsync_v2", 2)]),
    call("copy_device_to_device", Action::Copy, &[("cuMemcpyDtoD_v2", 2), ("cuMemcpyDtoDAsync_v2", 2)]),
    call("copy_peer", Action::Copy, &[("cuMemcpyPeer", 4), ("cuMemcpyPeerAsync", 4)]),
    // Where to and from is in the addresses.
    call("copy_any", Action::Copy, &[("cuMemcpy", 2), ("cuMemcpyAsync", 2)]),
    call(
        "module_load",
        Action::Call,
        &[
            ("cuModuleLoad", 0),
            ("cuModuleLoadData", 0),
            ("cuModuleLoadDataEx", 0),
            ("cuModuleLoadFatBinary", 0),
            ("cuLibraryLoadData", 0),
            ("cuLibraryLoadFromFile", 0),
        ],
    ),
    call("context_retain", Action::Context, &[("cuDevicePrimaryCtxRetain", 1)]),
    call(
        "context_create",
        Action::CreateContext,
        &[("cuCtxCreate_v2", 2), ("cuCtxCreate_v3", 4), ("cuCtxCreate_v4", 3)],
    ),
    // The runtime asks for what it tells of devices. Which is which is not a matter of `CUDA_VISIBLE_DEVICES` alone.
    call("device_uuid", Action::Identify, &[("cuDeviceGetUuid", 1), ("cuDeviceGetUuid_v2", 1)]),
    // Of the runtime, which is looked at only for what its driver is not told.
    call("device_set", Action::SetDevice, &[("cudaSetDevice", 0)]),
    call("device_reset", Action::Call, &[("cudaDeviceReset", 0)]),
    call("context_set", Action::SetContext, &[("cuCtxSetCurrent", 0), ("cuCtxPushCurrent_v2", 0)]),
];

impl Call {
    pub fn numbered() -> impl Iterator<Item = (u8, &'static Self)> {
        (0..).zip(CALLS)
    }

    pub fn cookie(&self, number: u8, argument: u8) -> Cookie {
        Cookie::new(number, self.action, argument, self.kind, self.part() as u8)
    }

    pub fn part(&self) -> Part {
        match self.action {
            Action::Launch => Part::Launches,
            Action::LaunchGraph | Action::Wait | Action::Copy => Part::Steps,
            _ => Part::Rest,
        }
    }

    /// Whether its entries are counted by each thread of its own.
    pub const fn is_of_threads(&self) -> bool {
        matches!(self.action, Action::Launch | Action::LaunchGraph)
    }

    /// The row of a kind of what threads count.
    pub fn of_kind(kind: u8) -> Option<(u8, &'static Self)> {
        let is_it = |call: &Self| call.is_of_threads() && call.functions.iter().all(|(_, number)| *number == kind);
        Self::numbered().find(|(_, call)| is_it(call))
    }

    /// Where the bytes of a copy go, as the label `direction`.
    pub fn direction(&self) -> Option<&'static str> {
        self.name.strip_prefix("copy_")
    }
}

/// A result by its name in `cuda.h` (`CUresult`), without `CUDA_ERROR_`; by its number where it is another. The runtime's (`cudaError_t`)
/// have the same numbers, and some more.
pub fn result(number: u32) -> String {
    let name = match number {
        1 => "invalid_value",
        2 => "out_of_memory",
        3 => "not_initialized",
        4 => "deinitialized",
        35 => "insufficient_driver",
        46 => "device_unavailable",
        100 => "no_device",
        101 => "invalid_device",
        201 => "invalid_context",
        209 => "no_binary_for_gpu",
        214 => "ecc_uncorrectable",
        220 => "nvlink_uncorrectable",
        400 => "invalid_handle",
        600 => "not_ready",
        700 => "illegal_address",
        701 => "launch_out_of_resources",
        702 => "launch_timeout",
        710 => "assert",
        714 => "hardware_stack_error",
        715 => "illegal_instruction",
        716 => "misaligned_address",
        717 => "invalid_address_space",
        718 => "invalid_pc",
        719 => "launch_failed",
        802 => "system_not_ready",
        900 => "stream_capture_unsupported",
        901 => "stream_capture_invalidated",
        999 => "unknown",
        _ => return number.to_string(),
    };
    name.to_owned()
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use plumbline_ebpf::cuda::KINDS;

    use super::*;

    #[test]
    fn a_function_is_counted_once_and_a_calls_number_fits_its_cookie() {
        let functions: Vec<&str> = CALLS.iter().flat_map(|call| call.functions).map(|(name, _)| *name).collect();
        assert_eq!(functions.iter().collect::<HashSet<_>>().len(), functions.len());
        assert_eq!(Call::numbered().count(), CALLS.len());
        let counted = CALLS.iter().filter(|call| call.is_of_threads()).count();
        assert_eq!((0..=u8::MAX).filter_map(Call::of_kind).count(), counted);
        assert!((0..KINDS).all(|kind| u8::try_from(kind).is_ok_and(|kind| Call::of_kind(kind).is_some())));
    }
}
