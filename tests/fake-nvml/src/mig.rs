//! The parts of a GPU under MIG: their handles, and what they say of themselves.
//!
//! A MIG device's handle is its GPU's with its place, counted from one, in the bits above.

use std::ffi::{c_uint, c_void};
use std::ptr;

use crate::abi::{Device, INVALID_ARGUMENT, NOT_FOUND, NOT_SUPPORTED, Return, SUCCESS};
use crate::scenario::{Gpu, MigDevice};
use crate::{answer, ask, ask_gpu, gpm};

/// Places of MIG devices that a GPU has, as on an A100 and an H100.
const PLACES: usize = 7;

const PLACE_SHIFT: u32 = 16;

/// The index of the GPU, and the place of the MIG device.
pub(crate) fn of_handle(device: Device) -> Option<(usize, Option<usize>)> {
    let gpu = (device.addr() & ((1 << PLACE_SHIFT) - 1)).checked_sub(1)?;
    Some((gpu, (device.addr() >> PLACE_SHIFT).checked_sub(1)))
}

/// The MIG device that a handle is of; `None` for that of a whole GPU.
pub(crate) fn of(device: Device, gpu: &Gpu) -> Option<&MigDevice> {
    let (_, place) = of_handle(device)?;
    gpu.mig.as_ref()?.get(place?)
}

/// # Safety
/// As [`answer`], for both.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetMigMode(device: Device, current: *mut c_uint, pending: *mut c_uint) -> Return {
    let mode = ask_gpu(device, "nvmlDeviceGetMigMode", |gpu, _| {
        gpu.mig.as_ref().map(|devices| c_uint::from(!devices.is_empty()))
    });
    // SAFETY: passed on.
    unsafe {
        answer(pending, mode);
        answer(current, mode)
    }
}

/// # Safety
/// As [`answer`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetMaxMigDeviceCount(device: Device, count: *mut c_uint) -> Return {
    let most = ask_gpu(device, "nvmlDeviceGetMaxMigDeviceCount", |gpu, _| {
        // What cannot be divided has no place, which is no error.
        Some(gpu.mig.as_ref().map_or(0, |_| c_uint::try_from(PLACES).unwrap_or(0)))
    });
    // SAFETY: passed on.
    unsafe { answer(count, most) }
}

/// # Safety
/// As [`answer`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetMigDeviceHandleByIndex(
    device: Device,
    index: c_uint,
    mig: *mut Device,
) -> Return {
    let place = index as usize;
    let found = ask(device, "nvmlDeviceGetMigDeviceHandleByIndex").and_then(|(scenario, gpu, _)| {
        let devices = scenario.gpus[gpu].mig.as_ref().ok_or(NOT_SUPPORTED)?;
        devices.get(place).ok_or(if place < PLACES { NOT_FOUND } else { INVALID_ARGUMENT })?;
        Ok(ptr::without_provenance_mut(device.addr() | (place + 1) << PLACE_SHIFT))
    });
    // SAFETY: passed on.
    unsafe { answer(mig, found) }
}

/// # Safety
/// As [`answer`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetGpuInstanceId(device: Device, id: *mut c_uint) -> Return {
    let told = ask_gpu(device, "nvmlDeviceGetGpuInstanceId", |gpu, _| of(device, gpu).map(|mig| mig.gpu_instance));
    // SAFETY: passed on.
    unsafe { answer(id, told) }
}

/// # Safety
/// As [`answer`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetComputeInstanceId(device: Device, id: *mut c_uint) -> Return {
    let told =
        ask_gpu(device, "nvmlDeviceGetComputeInstanceId", |gpu, _| of(device, gpu).map(|mig| mig.compute_instance));
    // SAFETY: passed on.
    unsafe { answer(id, told) }
}

/// # Safety
/// `sample` is null or came from `nvmlGpmSampleAlloc`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlGpmMigSampleGet(device: Device, gpu_instance: c_uint, sample: *mut c_void) -> Return {
    if sample.is_null() {
        return INVALID_ARGUMENT;
    }
    let told = ask(device, "nvmlGpmMigSampleGet").and_then(|(scenario, gpu, now)| {
        if now.gpm.is_empty() {
            return Err(NOT_SUPPORTED);
        }
        let mut devices = scenario.gpus[gpu].mig.iter().flatten();
        devices.find(|mig| mig.gpu_instance == gpu_instance).map(|mig| mig.gpm.clone()).ok_or(INVALID_ARGUMENT)
    });
    match told {
        Ok(metrics) => {
            // SAFETY: it came from a box of ours, by the caller's contract.
            unsafe { gpm::fill(sample, metrics) };
            SUCCESS
        }
        Err(error) => error,
    }
}
