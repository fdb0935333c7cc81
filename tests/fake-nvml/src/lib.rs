//! A shared library with NVML's C interface and no hardware behind it.
//!
//! Names, versions and struct layouts are those of NVIDIA's `nvml.h` (API version 13), for every function that the
//! daemon calls and for no other: what is missing here shows as a missing symbol, as on an old driver. The scenario is
//! the file that `FAKE_NVML_SCENARIO` names, else `scenario.yaml` beside the library, else a pair of H100. It is read
//! at every `nvmlInit_v2`.
//!
//! What this library feeds must never be taken for hardware: it exports [`plumbline_fake_nvml`], by which the daemon
//! labels everything `simulated="true"`.

#![expect(unsafe_code, reason = "a C interface: exported names, and pointers of the caller")]

mod scenario;

use std::ffi::{c_char, c_int, c_longlong, c_uint, c_ulonglong, c_void};
use std::path::PathBuf;
use std::sync::Mutex;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use std::{env, fs, ptr, thread};

use scenario::{Gpu, Scenario, State};

/// `nvmlReturn_t`.
type Return = c_uint;
const SUCCESS: Return = 0;
const UNINITIALIZED: Return = 1;
const INVALID_ARGUMENT: Return = 2;
const NOT_SUPPORTED: Return = 3;
const INSUFFICIENT_SIZE: Return = 7;
const GPU_IS_LOST: Return = 15;
const ARGUMENT_VERSION_MISMATCH: Return = 25;
const UNKNOWN: Return = 999;

/// `nvmlDevice_t`: opaque; ours is the index plus one.
type Device = *mut c_void;

/// `nvmlClockType_t`.
const CLOCK_SM: c_uint = 1;
const CLOCK_MEM: c_uint = 2;

/// `nvmlValueType_t`: `NVML_VALUE_TYPE_UNSIGNED_INT` and `NVML_VALUE_TYPE_UNSIGNED_LONG_LONG`.
const VALUE_TYPE_U32: c_uint = 1;
const VALUE_TYPE_U64: c_uint = 3;

/// `NVML_FI_DEV_MEMORY_TEMP`.
const FIELD_MEMORY_TEMP: c_uint = 82;
const FIELD_ECC_DBE: c_uint = 4;

#[repr(C)]
pub struct Utilization {
    gpu: c_uint,
    memory: c_uint,
}

/// `nvmlMemory_v2_t`.
#[repr(C)]
pub struct MemoryV2 {
    version: c_uint,
    total: c_ulonglong,
    reserved: c_ulonglong,
    free: c_ulonglong,
    used: c_ulonglong,
}

/// `nvmlPciInfo_t`.
#[repr(C)]
pub struct PciInfo {
    bus_id_legacy: [c_char; 16],
    domain: c_uint,
    bus: c_uint,
    device: c_uint,
    pci_device_id: c_uint,
    pci_subsystem_id: c_uint,
    bus_id: [c_char; 32],
}

/// `nvmlFieldValue_t`; of its value union we write the widest member.
#[repr(C)]
pub struct FieldValue {
    field_id: c_uint,
    scope_id: c_uint,
    timestamp_us: c_longlong,
    latency_us: c_longlong,
    value_type: c_uint,
    nvml_return: Return,
    value: c_ulonglong,
}

const _: () = assert!(size_of::<MemoryV2>() == 40 && size_of::<PciInfo>() == 68 && size_of::<FieldValue>() == 40);

/// Between `nvmlInit_v2` and the last `nvmlShutdown`.
struct Session {
    scenario: Scenario,
    began: Instant,
    /// NVML counts its initializations.
    users: usize,
}

static SESSION: Mutex<Option<Session>> = Mutex::new(None);

/// The mark by which the daemon knows that nothing here is real.
#[unsafe(no_mangle)]
pub extern "C" fn plumbline_fake_nvml() -> c_int {
    1
}

#[unsafe(no_mangle)]
pub extern "C" fn nvmlInit_v2() -> Return {
    let Ok(mut session) = SESSION.lock() else { return UNKNOWN };
    if let Some(session) = session.as_mut() {
        session.users += 1;
        return SUCCESS;
    }
    match load() {
        Ok(scenario) if scenario.init_return != SUCCESS => scenario.init_return,
        Ok(scenario) => {
            *session = Some(Session { scenario, began: Instant::now(), users: 1 });
            SUCCESS
        }
        Err(reason) => {
            eprintln!("fake NVML: {reason}");
            UNKNOWN
        }
    }
}

#[unsafe(no_mangle)]
pub extern "C" fn nvmlShutdown() -> Return {
    let Ok(mut session) = SESSION.lock() else { return UNKNOWN };
    let Some(open) = session.as_mut() else { return UNINITIALIZED };
    open.users -= 1;
    if open.users == 0 {
        *session = None;
    }
    SUCCESS
}

fn load() -> Result<Scenario, String> {
    let beside = || Some(own_path()?.with_file_name("scenario.yaml")).filter(|path| path.exists());
    let Some(path) = env::var_os("FAKE_NVML_SCENARIO").map(PathBuf::from).or_else(beside) else {
        return Scenario::parse(include_str!("../scenarios/h100-pair.yaml"));
    };
    let text = fs::read_to_string(&path).map_err(|error| format!("reading {}: {error}", path.display()))?;
    Scenario::parse(&text).map_err(|error| format!("{}: {error}", path.display()))
}

/// The file this library was loaded from: the mapping that holds one of its functions.
fn own_path() -> Option<PathBuf> {
    let here = plumbline_fake_nvml as *const () as usize;
    let maps = fs::read_to_string("/proc/self/maps").ok()?;
    let line = maps.lines().find(|line| {
        let range = line.split(' ').next().and_then(|range| range.split_once('-'));
        let bound = |text| usize::from_str_radix(text, 16).unwrap_or(0);
        range.is_some_and(|(from, to)| (bound(from)..bound(to)).contains(&here))
    })?;
    Some(PathBuf::from(&line[line.find('/')?..]))
}

/// What `device` says now to `function`, or the error it answers with.
fn ask(device: Device, function: &str) -> Result<(Scenario, Gpu, State), Return> {
    let (scenario, elapsed) = {
        let session = SESSION.lock().map_err(|_| UNKNOWN)?;
        let open = session.as_ref().ok_or(UNINITIALIZED)?;
        (open.scenario.clone(), open.began.elapsed())
    };
    let index = device.addr().checked_sub(1).ok_or(INVALID_ARGUMENT)?;
    let gpu = scenario.gpus.get(index).cloned().ok_or(INVALID_ARGUMENT)?;
    let state = gpu.at(elapsed);
    // Outside the lock: only this GPU's caller waits.
    if state.hang > Duration::ZERO {
        thread::sleep(state.hang);
    }
    if state.lost {
        return Err(GPU_IS_LOST);
    }
    if gpu.unsupported.iter().any(|name| name == function) {
        return Err(NOT_SUPPORTED);
    }
    Ok((scenario, gpu, state))
}

/// Writes an answer through the caller's pointer.
///
/// # Safety
/// `out` is null or valid for a write of `T`, as NVML's interface demands of its callers.
unsafe fn answer<T>(out: *mut T, value: Result<T, Return>) -> Return {
    if out.is_null() {
        return INVALID_ARGUMENT;
    }
    match value {
        Ok(value) => {
            // SAFETY: not null, and valid by this function's contract.
            unsafe { out.write(value) };
            SUCCESS
        }
        Err(error) => error,
    }
}

/// Writes a string with its end into the caller's buffer.
///
/// # Safety
/// `out` is null or valid for writes of `length` bytes.
unsafe fn answer_text(out: *mut c_char, length: c_uint, value: Result<String, Return>) -> Return {
    let text = match value {
        Ok(text) => text,
        Err(error) => return error,
    };
    if out.is_null() {
        return INVALID_ARGUMENT;
    }
    if text.len() >= length as usize {
        return INSUFFICIENT_SIZE;
    }
    // SAFETY: the buffer holds `length` bytes by this function's contract, and the text and its end are no longer.
    unsafe {
        ptr::copy_nonoverlapping(text.as_ptr().cast(), out, text.len());
        out.add(text.len()).write(0);
    }
    SUCCESS
}

/// # Safety
/// As [`answer_text`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlSystemGetDriverVersion(version: *mut c_char, length: c_uint) -> Return {
    let session = SESSION.lock().map_err(|_| UNKNOWN);
    let driver = session.and_then(|open| open.as_ref().map(|open| open.scenario.driver.clone()).ok_or(UNINITIALIZED));
    // SAFETY: passed on.
    unsafe { answer_text(version, length, driver) }
}

/// # Safety
/// As [`answer`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetCount_v2(count: *mut c_uint) -> Return {
    let session = SESSION.lock().map_err(|_| UNKNOWN);
    let gpus = session.and_then(|open| open.as_ref().map(|open| open.scenario.gpus.len()).ok_or(UNINITIALIZED));
    // SAFETY: passed on.
    unsafe { answer(count, gpus.and_then(|gpus| c_uint::try_from(gpus).map_err(|_| UNKNOWN))) }
}

/// # Safety
/// As [`answer`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetHandleByIndex_v2(index: c_uint, device: *mut Device) -> Return {
    let handle = ptr::without_provenance_mut(index as usize + 1);
    let found = ask(handle, "nvmlDeviceGetHandleByIndex_v2").map(|_| handle);
    // SAFETY: passed on.
    unsafe { answer(device, found) }
}

/// # Safety
/// As [`answer_text`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetUUID(device: Device, uuid: *mut c_char, length: c_uint) -> Return {
    // SAFETY: passed on.
    unsafe { answer_text(uuid, length, ask(device, "nvmlDeviceGetUUID").map(|(_, gpu, _)| gpu.uuid)) }
}

/// # Safety
/// As [`answer_text`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetName(device: Device, name: *mut c_char, length: c_uint) -> Return {
    // SAFETY: passed on.
    unsafe { answer_text(name, length, ask(device, "nvmlDeviceGetName").map(|(_, gpu, _)| gpu.name)) }
}

/// # Safety
/// As [`answer`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetPciInfo_v3(device: Device, pci: *mut PciInfo) -> Return {
    let info = ask(device, "nvmlDeviceGetPciInfo_v3").map(|(_, gpu, _)| {
        let number = |text: Option<&str>| text.and_then(|text| c_uint::from_str_radix(text, 16).ok()).unwrap_or(0);
        let mut parts = gpu.pci_bus_id.split([':', '.']);
        PciInfo {
            bus_id_legacy: chars(&gpu.pci_bus_id),
            domain: number(parts.next()),
            bus: number(parts.next()),
            device: number(parts.next()),
            pci_device_id: 0,
            pci_subsystem_id: 0,
            bus_id: chars(&gpu.pci_bus_id),
        }
    });
    // SAFETY: passed on.
    unsafe { answer(pci, info) }
}

/// Text in a fixed buffer, cut so that its end fits.
fn chars<const N: usize>(text: &str) -> [c_char; N] {
    let mut buffer = [0; N];
    for (to, from) in buffer[..N - 1].iter_mut().zip(text.bytes()) {
        *to = from.cast_signed();
    }
    buffer
}

/// # Safety
/// As [`answer`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetUtilizationRates(device: Device, utilization: *mut Utilization) -> Return {
    let rates = ask(device, "nvmlDeviceGetUtilizationRates")
        .map(|(_, _, now)| Utilization { gpu: now.utilization_percent, memory: now.memory_utilization_percent });
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
    let info = ask(device, "nvmlDeviceGetMemoryInfo_v2").map(|(_, gpu, now)| MemoryV2 {
        version: VERSION,
        total: gpu.memory_total_bytes,
        reserved: 0,
        free: gpu.memory_total_bytes.saturating_sub(now.memory_used_bytes),
        used: now.memory_used_bytes,
    });
    // SAFETY: passed on.
    unsafe { answer(memory, info) }
}

/// # Safety
/// As [`answer`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetClockInfo(device: Device, clock: c_uint, mhz: *mut c_uint) -> Return {
    let now = ask(device, "nvmlDeviceGetClockInfo").and_then(|(_, _, now)| match clock {
        CLOCK_SM => Ok(now.sm_clock_mhz),
        CLOCK_MEM => Ok(now.memory_clock_mhz),
        _ => Err(NOT_SUPPORTED),
    });
    // SAFETY: passed on.
    unsafe { answer(mhz, now) }
}

/// # Safety
/// As [`answer`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetMaxClockInfo(device: Device, clock: c_uint, mhz: *mut c_uint) -> Return {
    let most = ask(device, "nvmlDeviceGetMaxClockInfo").and_then(|(_, gpu, _)| match clock {
        CLOCK_SM => Ok(gpu.max_sm_clock_mhz),
        _ => Err(NOT_SUPPORTED),
    });
    // SAFETY: passed on.
    unsafe { answer(mhz, most) }
}

/// # Safety
/// As [`answer`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetTemperature(device: Device, sensor: c_uint, celsius: *mut c_uint) -> Return {
    let now = ask(device, "nvmlDeviceGetTemperature")
        .and_then(|(_, _, now)| if sensor == 0 { Ok(now.temperature_celsius) } else { Err(INVALID_ARGUMENT) });
    // SAFETY: passed on.
    unsafe { answer(celsius, now) }
}

/// # Safety
/// As [`answer`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetPowerUsage(device: Device, milliwatts: *mut c_uint) -> Return {
    // SAFETY: passed on.
    unsafe { answer(milliwatts, ask(device, "nvmlDeviceGetPowerUsage").map(|(_, _, now)| now.power_mw)) }
}

/// # Safety
/// As [`answer`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetEnforcedPowerLimit(device: Device, milliwatts: *mut c_uint) -> Return {
    let limit = ask(device, "nvmlDeviceGetEnforcedPowerLimit").map(|(_, gpu, _)| gpu.power_limit_mw);
    // SAFETY: passed on.
    unsafe { answer(milliwatts, limit) }
}

/// # Safety
/// As [`answer`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetTotalEnergyConsumption(device: Device, millijoules: *mut c_ulonglong) -> Return {
    let energy = ask(device, "nvmlDeviceGetTotalEnergyConsumption").map(|(_, _, now)| now.energy_mj);
    // SAFETY: passed on.
    unsafe { answer(millijoules, energy) }
}

/// # Safety
/// As [`answer`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetCurrentClocksThrottleReasons(device: Device, bits: *mut c_ulonglong) -> Return {
    let now = ask(device, "nvmlDeviceGetCurrentClocksThrottleReasons").map(|(_, _, now)| now.throttle_reasons);
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
    let counted = ask(device, "nvmlDeviceGetPcieReplayCounter").map(|(_, _, now)| now.pcie_replays);
    // SAFETY: passed on.
    unsafe { answer(replays, counted) }
}

/// # Safety
/// `values` is null or valid for reads and writes of `count` entries.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetFieldValues(device: Device, count: c_int, values: *mut FieldValue) -> Return {
    let (Ok(count), false) = (usize::try_from(count), values.is_null()) else { return INVALID_ARGUMENT };
    let (scenario, _, now) = match ask(device, "nvmlDeviceGetFieldValues") {
        Ok(known) => known,
        Err(error) => return error,
    };
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    for index in 0..count {
        // SAFETY: within the caller's array, which nobody else uses during the call.
        let entry = unsafe { &mut *values.add(index) };
        entry.timestamp_us = c_longlong::try_from(since_1970.as_micros()).unwrap_or(0);
        entry.latency_us = 1;
        let value = match scenario.old_field_id(entry.field_id) {
            // Little-endian, so that the union's narrow member is the low half of its wide one.
            FIELD_MEMORY_TEMP => now.memory_temperature_celsius.map(|celsius| (VALUE_TYPE_U32, celsius.into())),
            FIELD_ECC_DBE => now.ecc_uncorrected.map(|errors| (VALUE_TYPE_U64, errors)),
            field => now.throttle_ns.get(&field).map(|&nanoseconds| (VALUE_TYPE_U64, nanoseconds)),
        };
        match value {
            Some((value_type, value)) => {
                (entry.nvml_return, entry.value_type, entry.value) = (SUCCESS, value_type, value);
            }
            None => entry.nvml_return = NOT_SUPPORTED,
        }
    }
    SUCCESS
}
