//! A shared library with NVML's C interface and no hardware behind it.
//!
//! Names, versions and struct layouts are those of NVIDIA's `nvml.h` (API version 13), for every function that the
//! daemon calls and for no other: what is missing here shows as a missing symbol, as on an old driver. The scenario is
//! the file that `FAKE_NVML_SCENARIO` names, else `scenario.yaml` beside the library, else a pair of H100. It is read
//! at every `nvmlInit_v2`, when its time begins, unless the scenario names another beginning.
//!
//! What this library feeds must never be taken for hardware: it exports [`plumbline_fake_nvml`], by which the daemon
//! labels everything `simulated="true"`.

#![expect(unsafe_code, reason = "a C interface: exported names, and pointers of the caller")]

mod abi;
mod events;
mod fields;
mod getters;
mod gpm;
mod mig;
mod scenario;

use std::ffi::{c_char, c_int, c_uint};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use std::{env, fs, ptr, thread};

use abi::{
    Device, GPU_IS_LOST, INSUFFICIENT_SIZE, INVALID_ARGUMENT, NOT_SUPPORTED, PciInfo, Return, SUCCESS, UNINITIALIZED,
    UNKNOWN,
};
use scenario::{Gpu, Scenario, State};

/// Between `nvmlInit_v2` and the last `nvmlShutdown`.
struct Session {
    scenario: Arc<Scenario>,
    /// Nanoseconds of CLOCK_BOOTTIME.
    began_boot_ns: u64,
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
            let began_boot_ns = scenario.epoch_boot_ns.unwrap_or_else(boot_ns);
            *session = Some(Session { scenario: Arc::new(scenario), began_boot_ns, users: 1 });
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

fn boot_ns() -> u64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    u64::try_from(time.tv_sec).unwrap_or(0) * 1_000_000_000 + u64::try_from(time.tv_nsec).unwrap_or(0)
}

/// What `device` says now to `function`, or the error it answers with.
fn ask(device: Device, function: &str) -> Result<(Arc<Scenario>, usize, State), Return> {
    let (scenario, elapsed) = now()?;
    let (index, place) = mig::of_handle(device).ok_or(INVALID_ARGUMENT)?;
    let gpu = scenario.gpus.get(index).ok_or(INVALID_ARGUMENT)?;
    if place.is_some() && mig::of(device, gpu).is_none() {
        return Err(INVALID_ARGUMENT);
    }
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
    Ok((scenario, index, state))
}

/// The scenario, and how long it lasts; an error when the driver is gone.
fn now() -> Result<(Arc<Scenario>, Duration), Return> {
    let session = SESSION.lock().map_err(|_| UNKNOWN)?;
    let open = session.as_ref().ok_or(UNINITIALIZED)?;
    let elapsed = Duration::from_nanos(boot_ns().saturating_sub(open.began_boot_ns));
    match open.scenario.gone {
        Some(gone) if elapsed.as_secs_f64() >= gone.at_s => Err(gone.code),
        _ => Ok((Arc::clone(&open.scenario), elapsed)),
    }
}

/// What a function tells that only asks about the GPU.
fn ask_gpu<T>(device: Device, function: &str, tell: impl FnOnce(&Gpu, &State) -> Option<T>) -> Result<T, Return> {
    let (scenario, index, state) = ask(device, function)?;
    tell(&scenario.gpus[index], &state).ok_or(NOT_SUPPORTED)
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
    let driver = now().map(|(scenario, _)| scenario.driver.clone());
    // SAFETY: passed on.
    unsafe { answer_text(version, length, driver) }
}

/// # Safety
/// As [`answer`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetCount_v2(count: *mut c_uint) -> Return {
    let gpus = now().map(|(scenario, _)| scenario.gpus.len());
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
    unsafe {
        answer_text(
            uuid,
            length,
            ask_gpu(device, "nvmlDeviceGetUUID", |gpu, _| {
                Some(mig::of(device, gpu).map_or(&gpu.uuid, |mig| &mig.uuid).clone())
            }),
        )
    }
}

/// # Safety
/// As [`answer_text`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetName(device: Device, name: *mut c_char, length: c_uint) -> Return {
    // SAFETY: passed on.
    unsafe {
        answer_text(
            name,
            length,
            ask_gpu(device, "nvmlDeviceGetName", |gpu, _| {
                let part = mig::of(device, gpu).map(|mig| format!("{} MIG {}", gpu.name, mig.profile));
                Some(part.unwrap_or_else(|| gpu.name.clone()))
            }),
        )
    }
}

/// # Safety
/// As [`answer`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetPciInfo_v3(device: Device, pci: *mut PciInfo) -> Return {
    let info = ask_gpu(device, "nvmlDeviceGetPciInfo_v3", |gpu, _| {
        let number = |text: Option<&str>| text.and_then(|text| c_uint::from_str_radix(text, 16).ok()).unwrap_or(0);
        let mut parts = gpu.pci_bus_id.split([':', '.']);
        Some(PciInfo {
            bus_id_legacy: chars(&gpu.pci_bus_id),
            domain: number(parts.next()),
            bus: number(parts.next()),
            device: number(parts.next()),
            pci_device_id: 0,
            pci_subsystem_id: 0,
            bus_id: chars(&gpu.pci_bus_id),
        })
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
