//! NVML's event set: nvml-wrapper drops the instance ids of an event, and knows no type beyond 0x100.
#![expect(unsafe_code, reason = "calls into the NVML library that nvml-wrapper does not offer")]

use std::{ptr, time::Duration};

use nvml_wrapper::{
    Device, Nvml,
    error::{NvmlError, nvml_sym, nvml_try},
};
use nvml_wrapper_sys::bindings as sys;

/// `nvmlEventType…` of `nvml.h`: those that something is done about.
pub const XID: u64 = sys::nvmlEventTypeXidCriticalError as u64;
pub const MIG_CHANGE: u64 = 0x100;

/// An open event set of one GPU.
#[derive(Debug)]
pub struct EventSet {
    nvml: &'static Nvml,
    set: sys::nvmlEventSet_t,
}

// SAFETY: NVML's calls may be made from any thread; the set is used by its owner alone.
unsafe impl Send for EventSet {}

/// What happened to a GPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NvmlEvent {
    pub kind: u64,
    /// Of an XID, its number.
    pub data: u64,
    pub gpu_instance: Option<u32>,
    pub compute_instance: Option<u32>,
}

impl EventSet {
    pub fn new(nvml: &'static Nvml) -> Result<Self, NvmlError> {
        let call = nvml_sym(nvml.lib().nvmlEventSetCreate.as_ref())?;
        let mut set: sys::nvmlEventSet_t = ptr::null_mut();
        // SAFETY: NVML is open for good; `set` outlives the call.
        nvml_try(unsafe { call(&raw mut set) })?;
        Ok(Self { nvml, set })
    }

    /// Asks for those of `kinds` that the GPU can tell.
    pub fn register(&self, device: &Device<'static>, kinds: u64) -> Result<(), NvmlError> {
        let supported = nvml_sym(self.nvml.lib().nvmlDeviceGetSupportedEventTypes.as_ref())?;
        let register = nvml_sym(self.nvml.lib().nvmlDeviceRegisterEvents.as_ref())?;
        let mut can = 0;
        // SAFETY: the handle belongs to an NVML that is open for good; `can` outlives the call.
        nvml_try(unsafe { supported(device.handle(), &raw mut can) })?;
        if can & kinds == 0 {
            return Err(NvmlError::NotSupported);
        }
        // SAFETY: as above, and the set is open.
        nvml_try(unsafe { register(device.handle(), can & kinds, self.set) })
    }

    /// The next event; `None` when none came in time.
    pub fn wait(&self, timeout: Duration) -> Result<Option<NvmlEvent>, NvmlError> {
        let call = nvml_sym(self.nvml.lib().nvmlEventSetWait_v2.as_ref())?;
        let mut data = sys::nvmlEventData_t {
            device: ptr::null_mut(),
            eventType: 0,
            eventData: 0,
            gpuInstanceId: u32::MAX,
            computeInstanceId: u32::MAX,
        };
        let ms = u32::try_from(timeout.as_millis()).unwrap_or(u32::MAX);
        // SAFETY: the set is open; `data` outlives the call.
        match nvml_try(unsafe { call(self.set, &raw mut data, ms) }) {
            Ok(()) => Ok(Some(NvmlEvent {
                kind: data.eventType,
                data: data.eventData,
                gpu_instance: Some(data.gpuInstanceId).filter(|id| *id != u32::MAX),
                compute_instance: Some(data.computeInstanceId).filter(|id| *id != u32::MAX),
            })),
            Err(NvmlError::Timeout) => Ok(None),
            Err(error) => Err(error),
        }
    }
}
