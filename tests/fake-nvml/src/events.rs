//! The event set: XIDs, each told once, and a wait that blocks.

use std::collections::BTreeSet;
use std::ffi::{c_uint, c_ulonglong, c_void};
use std::time::{Duration, Instant};
use std::{ptr, thread};

use crate::abi::{Device, EventData, INVALID_ARGUMENT, Return, SUCCESS, TIMEOUT};
use crate::{answer, ask, now};

/// `nvmlEventTypeXidCriticalError`.
const XID: c_ulonglong = 0x8;

/// Rounding must not make a wait spin.
const SHORTEST: Duration = Duration::from_millis(1);

/// GPUs that were registered, and which of the scenario's events were told.
#[derive(Default)]
struct EventSet {
    registered: BTreeSet<usize>,
    told: BTreeSet<usize>,
    /// Events that were over when the set was made are not told: nobody was there.
    began: Duration,
}

/// # Safety
/// As [`answer`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlEventSetCreate(set: *mut *mut c_void) -> Return {
    let fresh = now().map(|(_, began)| {
        let fresh: *mut EventSet = Box::into_raw(Box::new(EventSet { began, ..EventSet::default() }));
        fresh.cast::<c_void>()
    });
    // SAFETY: passed on.
    unsafe { answer(set, fresh) }
}

/// # Safety
/// `set` is null or came from `nvmlEventSetCreate`, and is not used again.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlEventSetFree(set: *mut c_void) -> Return {
    if set.is_null() {
        return INVALID_ARGUMENT;
    }
    // SAFETY: it came from a box of ours, by the caller's contract.
    drop(unsafe { Box::from_raw(set.cast::<EventSet>()) });
    SUCCESS
}

/// # Safety
/// As [`answer`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetSupportedEventTypes(device: Device, types: *mut c_ulonglong) -> Return {
    // SAFETY: passed on.
    unsafe { answer(types, ask(device, "nvmlDeviceGetSupportedEventTypes").map(|_| XID)) }
}

/// # Safety
/// `set` is null or came from `nvmlEventSetCreate`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceRegisterEvents(device: Device, types: c_ulonglong, set: *mut c_void) -> Return {
    if set.is_null() || types & !XID != 0 {
        return INVALID_ARGUMENT;
    }
    match ask(device, "nvmlDeviceRegisterEvents") {
        Ok((_, index, _)) => {
            // SAFETY: it came from a box of ours, by the caller's contract.
            unsafe { (*set.cast::<EventSet>()).registered.insert(index) };
            SUCCESS
        }
        Err(error) => error,
    }
}

/// # Safety
/// `set` is null or came from `nvmlEventSetCreate`; `data` as [`answer`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlEventSetWait_v2(set: *mut c_void, data: *mut EventData, timeout_ms: c_uint) -> Return {
    if set.is_null() {
        return INVALID_ARGUMENT;
    }
    // SAFETY: it came from a box of ours, by the caller's contract, and only the caller uses it.
    let set = unsafe { &mut *set.cast::<EventSet>() };
    let until = Instant::now() + Duration::from_millis(timeout_ms.into());
    loop {
        let (scenario, elapsed) = match now() {
            Ok(now) => now,
            Err(error) => return error,
        };
        let due = scenario.events.iter().enumerate().find(|(index, event)| {
            let at = Duration::from_secs_f64(event.at_s);
            at <= elapsed && at >= set.began && set.registered.contains(&event.gpu) && !set.told.contains(index)
        });
        if let Some((index, event)) = due {
            set.told.insert(index);
            let told = EventData {
                device: ptr::without_provenance_mut(event.gpu + 1),
                event_type: XID,
                event_data: event.xid,
                gpu_instance_id: event.gpu_instance,
                compute_instance_id: event.compute_instance,
            };
            // SAFETY: passed on.
            return unsafe { answer(data, Ok(told)) };
        }
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return TIMEOUT;
        }
        // Until the next of them is due: a wait that polls would cost more than all questions.
        let to_come =
            scenario.events.iter().map(|event| Duration::from_secs_f64(event.at_s)).filter(|at| *at > elapsed);
        let gone = scenario.gone.map(|gone| Duration::from_secs_f64(gone.at_s)).filter(|at| *at > elapsed);
        let next = to_come.chain(gone).min().map_or(left, |at| left.min(at.saturating_sub(elapsed)));
        thread::sleep(next.max(SHORTEST));
    }
}
