//! The getters of a GPU, one exported function each.

use std::ffi::{c_char, c_uint, c_ulonglong};

use crate::abi::{
    self, ARGUMENT_VERSION_MISMATCH, ConfComputeState, Device, FabricInfo, INSUFFICIENT_SIZE, INVALID_ARGUMENT,
    MarginTemperature, MemoryV2, NOT_SUPPORTED, ProcessInfo, ProcessUtilizationSample, Return, SUCCESS,
    SramErrorStatus, Utilization,
};
use crate::scenario::Process;
use crate::{answer, answer_text, ask, ask_gpu, mig, now};

/// `nvmlClockType_t`.
const CLOCK_SM: c_uint = 1;
const CLOCK_MEM: c_uint = 2;
const CLOCK_VIDEO: c_uint = 3;

/// # Safety
/// As [`answer`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetUtilizationRates(device: Device, utilization: *mut Utilization) -> Return {
    let rates = ask_gpu(device, "nvmlDeviceGetUtilizationRates", |_, now| {
        Some(Utilization { gpu: now.utilization_percent, memory: now.memory_utilization_percent })
    });
    // SAFETY: passed on.
    unsafe { answer(utilization, rates) }
}

/// # Safety
/// As [`answer`], and the version word of `memory` is set.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetMemoryInfo_v2(device: Device, memory: *mut MemoryV2) -> Return {
    const VERSION: c_uint = 40 | 2 << 24;
    if memory.is_null() {
        return INVALID_ARGUMENT;
    }
    // SAFETY: not null, and valid by the caller's contract.
    if unsafe { (*memory).version } != VERSION {
        return ARGUMENT_VERSION_MISMATCH;
    }
    let info = ask_gpu(device, "nvmlDeviceGetMemoryInfo_v2", |gpu, now| {
        if let Some(mig) = mig::of(device, gpu) {
            let (total, used) = (mig.memory_total_bytes, mig.memory_used_bytes);
            return Some(MemoryV2 { version: VERSION, total, reserved: 0, free: total.saturating_sub(used), used });
        }
        Some(MemoryV2 {
            version: VERSION,
            total: gpu.memory_total_bytes,
            reserved: gpu.memory_reserved_bytes,
            free: gpu.memory_total_bytes.saturating_sub(now.memory_used_bytes + gpu.memory_reserved_bytes),
            used: now.memory_used_bytes,
        })
    });
    // SAFETY: passed on.
    unsafe { answer(memory, info) }
}

/// # Safety
/// As [`answer`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetClockInfo(device: Device, clock: c_uint, mhz: *mut c_uint) -> Return {
    let now = ask_gpu(device, "nvmlDeviceGetClockInfo", |_, now| match clock {
        CLOCK_SM => Some(now.sm_clock_mhz),
        CLOCK_MEM => Some(now.memory_clock_mhz),
        CLOCK_VIDEO => now.video_clock_mhz,
        _ => None,
    });
    // SAFETY: passed on.
    unsafe { answer(mhz, now) }
}

/// # Safety
/// As [`answer`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetMaxClockInfo(device: Device, clock: c_uint, mhz: *mut c_uint) -> Return {
    let most = ask_gpu(device, "nvmlDeviceGetMaxClockInfo", |gpu, _| match clock {
        CLOCK_SM => Some(gpu.max_sm_clock_mhz),
        CLOCK_MEM => gpu.max_memory_clock_mhz,
        CLOCK_VIDEO => gpu.max_video_clock_mhz,
        _ => None,
    });
    // SAFETY: passed on.
    unsafe { answer(mhz, most) }
}

/// # Safety
/// As [`answer`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetTemperature(device: Device, sensor: c_uint, celsius: *mut c_uint) -> Return {
    let now = ask_gpu(device, "nvmlDeviceGetTemperature", |_, now| (sensor == 0).then_some(now.temperature_celsius));
    // SAFETY: passed on.
    unsafe { answer(celsius, now) }
}

/// # Safety
/// As [`answer`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetPowerUsage(device: Device, milliwatts: *mut c_uint) -> Return {
    // SAFETY: passed on.
    unsafe { answer(milliwatts, ask_gpu(device, "nvmlDeviceGetPowerUsage", |_, now| Some(now.power_mw))) }
}

/// # Safety
/// As [`answer`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetEnforcedPowerLimit(device: Device, milliwatts: *mut c_uint) -> Return {
    let limit = ask_gpu(device, "nvmlDeviceGetEnforcedPowerLimit", |gpu, _| Some(gpu.power_limit_mw));
    // SAFETY: passed on.
    unsafe { answer(milliwatts, limit) }
}

/// # Safety
/// As [`answer`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetTotalEnergyConsumption(device: Device, millijoules: *mut c_ulonglong) -> Return {
    let energy = ask_gpu(device, "nvmlDeviceGetTotalEnergyConsumption", |_, now| Some(now.energy_mj));
    // SAFETY: passed on.
    unsafe { answer(millijoules, energy) }
}

/// # Safety
/// As [`answer`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetCurrentClocksThrottleReasons(device: Device, bits: *mut c_ulonglong) -> Return {
    let now = ask_gpu(device, "nvmlDeviceGetCurrentClocksThrottleReasons", |_, now| Some(now.throttle_reasons));
    // SAFETY: passed on.
    unsafe { answer(bits, now) }
}

/// # Safety
/// As [`answer`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetNvLinkState(device: Device, link: c_uint, state: *mut c_uint) -> Return {
    let up = ask(device, "nvmlDeviceGetNvLinkState").and_then(|(_, _, now)| {
        let link = now.nvlinks_up.get(link as usize);
        link.map(|&up| c_uint::from(up)).ok_or(if now.nvlinks_up.is_empty() { NOT_SUPPORTED } else { INVALID_ARGUMENT })
    });
    // SAFETY: passed on.
    unsafe { answer(state, up) }
}

/// # Safety
/// As [`answer`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetPcieReplayCounter(device: Device, replays: *mut c_uint) -> Return {
    let counted = ask_gpu(device, "nvmlDeviceGetPcieReplayCounter", |_, now| Some(now.pcie_replays));
    // SAFETY: passed on.
    unsafe { answer(replays, counted) }
}

/// # Safety
/// As [`answer`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetMinorNumber(device: Device, minor: *mut c_uint) -> Return {
    let told = ask_gpu(device, "nvmlDeviceGetMinorNumber", |gpu, _| Some(gpu.minor));
    // SAFETY: passed on.
    unsafe { answer(minor, told) }
}

/// # Safety
/// As [`answer`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetNumaNodeId(device: Device, node: *mut c_uint) -> Return {
    let told = ask_gpu(device, "nvmlDeviceGetNumaNodeId", |gpu, _| gpu.numa_node);
    // SAFETY: passed on.
    unsafe { answer(node, told) }
}

/// # Safety
/// As [`answer`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetApplicationsClock(device: Device, clock: c_uint, mhz: *mut c_uint) -> Return {
    let told = ask_gpu(device, "nvmlDeviceGetApplicationsClock", |gpu, _| match clock {
        CLOCK_SM => gpu.application_sm_clock_mhz,
        CLOCK_MEM => gpu.application_memory_clock_mhz,
        _ => None,
    });
    // SAFETY: passed on.
    unsafe { answer(mhz, told) }
}

/// # Safety
/// As [`answer`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetPerformanceState(device: Device, state: *mut c_uint) -> Return {
    let told = ask_gpu(device, "nvmlDeviceGetPerformanceState", |_, now| now.performance_state);
    // SAFETY: passed on.
    unsafe { answer(state, told) }
}

/// # Safety
/// As [`answer`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetTemperatureThreshold(
    device: Device,
    threshold: c_uint,
    celsius: *mut c_uint,
) -> Return {
    let told = ask_gpu(device, "nvmlDeviceGetTemperatureThreshold", |gpu, _| {
        gpu.temperature_limits_celsius.get(threshold as usize).copied()
    });
    // SAFETY: passed on.
    unsafe { answer(celsius, told) }
}

/// # Safety
/// As [`answer`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetCurrPcieLinkGeneration(device: Device, number: *mut c_uint) -> Return {
    let told = ask_gpu(device, "nvmlDeviceGetCurrPcieLinkGeneration", |gpu, _| gpu.pcie.map(|pcie| pcie[0]));
    // SAFETY: passed on.
    unsafe { answer(number, told) }
}

/// # Safety
/// As [`answer`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetMaxPcieLinkGeneration(device: Device, number: *mut c_uint) -> Return {
    let told = ask_gpu(device, "nvmlDeviceGetMaxPcieLinkGeneration", |gpu, _| gpu.pcie.map(|pcie| pcie[1]));
    // SAFETY: passed on.
    unsafe { answer(number, told) }
}

/// # Safety
/// As [`answer`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetCurrPcieLinkWidth(device: Device, number: *mut c_uint) -> Return {
    let told = ask_gpu(device, "nvmlDeviceGetCurrPcieLinkWidth", |gpu, _| gpu.pcie.map(|pcie| pcie[2]));
    // SAFETY: passed on.
    unsafe { answer(number, told) }
}

/// # Safety
/// As [`answer`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetMaxPcieLinkWidth(device: Device, number: *mut c_uint) -> Return {
    let told = ask_gpu(device, "nvmlDeviceGetMaxPcieLinkWidth", |gpu, _| gpu.pcie.map(|pcie| pcie[3]));
    // SAFETY: passed on.
    unsafe { answer(number, told) }
}

/// # Safety
/// As [`answer`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetPcieThroughput(device: Device, counter: c_uint, number: *mut c_uint) -> Return {
    let told = ask_gpu(device, "nvmlDeviceGetPcieThroughput", |gpu, _| {
        gpu.pcie_throughput.and_then(|both| both.get(counter as usize).copied())
    });
    // SAFETY: passed on.
    unsafe { answer(number, told) }
}

/// # Safety
/// `status` is null or valid for reads and writes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetSramEccErrorStatus(device: Device, status: *mut SramErrorStatus) -> Return {
    if status.is_null() {
        return INVALID_ARGUMENT;
    }
    // SAFETY: not null, and valid by the caller's contract.
    let version = unsafe { (*status).version };
    if version != abi::version::<SramErrorStatus>(1) {
        return ARGUMENT_VERSION_MISMATCH;
    }
    let told = ask_gpu(device, "nvmlDeviceGetSramEccErrorStatus", |gpu, _| {
        gpu.sram_errors.map(|([corrected, parity, secded], exceeded)| SramErrorStatus {
            version,
            aggregate: [parity, secded, corrected],
            volatile: [parity, secded, corrected],
            uncorrected_buckets: [0; 5],
            threshold_exceeded: c_uint::from(exceeded),
        })
    });
    // SAFETY: passed on.
    unsafe { answer(status, told) }
}

/// # Safety
/// As [`answer`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetEncoderUtilization(
    device: Device,
    percent: *mut c_uint,
    period_us: *mut c_uint,
) -> Return {
    let told = ask_gpu(device, "nvmlDeviceGetEncoderUtilization", |_, now| now.encoder_percent);
    // SAFETY: passed on.
    unsafe {
        answer(period_us, Ok(1_000_000));
        answer(percent, told)
    }
}

/// # Safety
/// As [`answer`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetDecoderUtilization(
    device: Device,
    percent: *mut c_uint,
    period_us: *mut c_uint,
) -> Return {
    let told = ask_gpu(device, "nvmlDeviceGetDecoderUtilization", |_, now| now.decoder_percent);
    // SAFETY: passed on.
    unsafe {
        answer(period_us, Ok(1_000_000));
        answer(percent, told)
    }
}

/// # Safety
/// As [`answer_text`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetSerial(device: Device, text: *mut c_char, length: c_uint) -> Return {
    // SAFETY: passed on.
    unsafe { answer_text(text, length, ask_gpu(device, "nvmlDeviceGetSerial", |gpu, _| gpu.serial.clone())) }
}

/// # Safety
/// As [`answer_text`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetVbiosVersion(device: Device, text: *mut c_char, length: c_uint) -> Return {
    // SAFETY: passed on.
    unsafe { answer_text(text, length, ask_gpu(device, "nvmlDeviceGetVbiosVersion", |gpu, _| gpu.vbios.clone())) }
}

/// # Safety
/// `margin` is null or valid for reads and writes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetMarginTemperature(device: Device, margin: *mut MarginTemperature) -> Return {
    if margin.is_null() {
        return INVALID_ARGUMENT;
    }
    // SAFETY: not null, and valid by the caller's contract.
    let version = unsafe { (*margin).version };
    if version != abi::version::<MarginTemperature>(1) {
        return ARGUMENT_VERSION_MISMATCH;
    }
    let told = ask_gpu(device, "nvmlDeviceGetMarginTemperature", |_, now| {
        now.margin_celsius.map(|celsius| MarginTemperature { version, celsius })
    });
    // SAFETY: passed on.
    unsafe { answer(margin, told) }
}

/// # Safety
/// `info` is null or valid for reads and writes of the version that it says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetGpuFabricInfoV(device: Device, info: *mut FabricInfo) -> Return {
    if info.is_null() {
        return INVALID_ARGUMENT;
    }
    // SAFETY: not null, and valid by the caller's contract.
    let version = unsafe { (*info).version };
    if version != abi::version::<FabricInfo>(3) {
        return ARGUMENT_VERSION_MISMATCH;
    }
    let told = ask_gpu(device, "nvmlDeviceGetGpuFabricInfoV", |_, now| {
        now.fabric.map(|fabric| FabricInfo {
            version,
            cluster_uuid: *b"plumbline fabric",
            status: fabric.status,
            clique_id: fabric.clique,
            state: fabric.state,
            health_mask: fabric.health_mask,
            health_summary: fabric.health_summary,
        })
    });
    // SAFETY: passed on.
    unsafe { answer(info, told) }
}

/// # Safety
/// As [`answer`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlSystemGetConfComputeState(state: *mut ConfComputeState) -> Return {
    let told = now().and_then(|(scenario, _)| {
        let cc_feature = c_uint::from(scenario.confidential_compute.ok_or(NOT_SUPPORTED)?);
        Ok(ConfComputeState { environment: 0, cc_feature, dev_tools_mode: 0 })
    });
    // SAFETY: passed on.
    unsafe { answer(state, told) }
}

/// # Safety
/// `count` is null or valid for reads and writes; `infos` is null or has room for as many as it says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetComputeRunningProcesses_v3(
    device: Device,
    count: *mut c_uint,
    infos: *mut ProcessInfo,
) -> Return {
    let told = ask_gpu(device, "nvmlDeviceGetComputeRunningProcesses_v3", |_, now| now.processes.clone());
    // SAFETY: passed on.
    unsafe { answer_processes(count, infos, told) }
}

/// # Safety
/// `count` is null or valid for reads and writes; `infos` is null or has room for as many as it says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetMPSComputeRunningProcesses_v3(
    device: Device,
    count: *mut c_uint,
    infos: *mut ProcessInfo,
) -> Return {
    let told = ask_gpu(device, "nvmlDeviceGetMPSComputeRunningProcesses_v3", |_, now| now.mps_processes.clone());
    // SAFETY: passed on.
    unsafe { answer_processes(count, infos, told) }
}

/// # Safety
/// As [`answer_list`].
unsafe fn answer_processes(count: *mut c_uint, infos: *mut ProcessInfo, told: Result<Vec<Process>, Return>) -> Return {
    let info = |process: &Process| ProcessInfo {
        pid: process.pid,
        used_gpu_memory: process.memory_bytes,
        gpu_instance_id: process.gpu_instance,
        compute_instance_id: process.compute_instance,
    };
    // SAFETY: passed on.
    unsafe { answer_list(count, infos, told.map(|processes| processes.iter().map(info).collect())) }
}

/// # Safety
/// `count` is null or valid for reads and writes; `samples` is null or has room for as many as it says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetProcessUtilization(
    device: Device,
    samples: *mut ProcessUtilizationSample,
    count: *mut c_uint,
    last_seen_us: c_ulonglong,
) -> Return {
    let told = ask_gpu(device, "nvmlDeviceGetProcessUtilization", |_, now| now.processes.clone());
    let timestamp_us = crate::boot_ns() / 1000;
    let sample = |process: &Process| ProcessUtilizationSample {
        pid: process.pid,
        timestamp_us: timestamp_us.max(last_seen_us + 1),
        sm: process.sm_percent,
        memory: 0,
        encoder: 0,
        decoder: 0,
    };
    // SAFETY: passed on.
    unsafe { answer_list(count, samples, told.map(|processes| processes.iter().map(sample).collect())) }
}

/// Writes a list into the caller's array, or says how long it would have to be.
///
/// # Safety
/// `count` is null or valid for reads and writes; `to` is null or has room for as many as it says.
unsafe fn answer_list<T>(count: *mut c_uint, to: *mut T, told: Result<Vec<T>, Return>) -> Return {
    let list = match told {
        Ok(list) => list,
        Err(error) => return error,
    };
    if count.is_null() {
        return INVALID_ARGUMENT;
    }
    // SAFETY: not null, and valid by this function's contract.
    let room = unsafe { *count } as usize;
    // SAFETY: as above.
    unsafe { *count = c_uint::try_from(list.len()).unwrap_or(0) };
    if list.len() > room || (to.is_null() && !list.is_empty()) {
        return INSUFFICIENT_SIZE;
    }
    for (index, one) in list.into_iter().enumerate() {
        // SAFETY: within the room that the caller's array has.
        unsafe { to.add(index).write(one) };
    }
    SUCCESS
}
