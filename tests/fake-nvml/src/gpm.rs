//! GPM: two samples, and what passed between them.

use std::collections::BTreeMap;
use std::ffi::{c_uint, c_void};
use std::ptr;

use crate::abi::{
    ARGUMENT_VERSION_MISMATCH, Device, GpmMetricsGet, GpmSupport, INVALID_ARGUMENT, NOT_SUPPORTED, Return, SUCCESS,
};
use crate::{answer, ask};

/// What a sample holds: the metrics of its time.
pub(crate) type Sample = BTreeMap<u32, f64>;

/// # Safety
/// `support` is null or valid for reads and writes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlGpmQueryDeviceSupport(device: Device, support: *mut GpmSupport) -> Return {
    if support.is_null() {
        return INVALID_ARGUMENT;
    }
    // SAFETY: not null, and valid by the caller's contract.
    if unsafe { (*support).version } != 1 {
        return ARGUMENT_VERSION_MISMATCH;
    }
    let told = ask(device, "nvmlGpmQueryDeviceSupport")
        .map(|(_, _, now)| GpmSupport { version: 1, is_supported: c_uint::from(!now.gpm.is_empty()) });
    // SAFETY: passed on.
    unsafe { answer(support, told) }
}

/// # Safety
/// As [`answer`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlGpmSampleAlloc(sample: *mut *mut c_void) -> Return {
    let fresh: *mut Sample = Box::into_raw(Box::default());
    // SAFETY: passed on.
    unsafe { answer(sample, Ok(fresh.cast())) }
}

/// # Safety
/// `sample` is null or came from `nvmlGpmSampleAlloc`, and is not used again.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlGpmSampleFree(sample: *mut c_void) -> Return {
    if sample.is_null() {
        return INVALID_ARGUMENT;
    }
    // SAFETY: it came from a box of ours, by the caller's contract.
    drop(unsafe { Box::from_raw(sample.cast::<Sample>()) });
    SUCCESS
}

/// # Safety
/// `sample` is null or came from `nvmlGpmSampleAlloc`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlGpmSampleGet(device: Device, sample: *mut c_void) -> Return {
    if sample.is_null() {
        return INVALID_ARGUMENT;
    }
    match ask(device, "nvmlGpmSampleGet") {
        Ok((_, _, now)) if now.gpm.is_empty() => NOT_SUPPORTED,
        Ok((_, _, now)) => {
            // SAFETY: it came from a box of ours, by the caller's contract.
            unsafe { fill(sample, now.gpm) };
            SUCCESS
        }
        Err(error) => error,
    }
}

/// # Safety
/// `sample` came from `nvmlGpmSampleAlloc`.
pub(crate) unsafe fn fill(sample: *mut c_void, metrics: Sample) {
    // SAFETY: it came from a box of ours, by this function's contract.
    unsafe { *sample.cast::<Sample>() = metrics };
}

/// # Safety
/// `request` is null or valid, with as many metrics as it says, and samples that were filled.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlGpmMetricsGet(request: *mut GpmMetricsGet) -> Return {
    if request.is_null() {
        return INVALID_ARGUMENT;
    }
    // SAFETY: not null, and the caller's own during the call.
    let request = unsafe { &mut *request };
    if request.version != 1 {
        return ARGUMENT_VERSION_MISMATCH;
    }
    if request.now.is_null() || request.before.is_null() || ptr::eq(request.now, request.before) {
        return INVALID_ARGUMENT;
    }
    // SAFETY: it came from a box of ours, by the caller's contract.
    let now = unsafe { &*request.now.cast::<Sample>() };
    let Some(metrics) = request.metrics.get_mut(..request.count as usize) else { return INVALID_ARGUMENT };
    for metric in metrics {
        match now.get(&metric.id) {
            Some(&value) => (metric.nvml_return, metric.value) = (SUCCESS, value),
            None => metric.nvml_return = NOT_SUPPORTED,
        }
    }
    SUCCESS
}
