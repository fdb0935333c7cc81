//! What nvml-wrapper does not wrap or narrows: the only `unsafe` of the GPU stage.
#![expect(unsafe_code, reason = "calls into the NVML library that nvml-wrapper does not offer")]

use nvml_wrapper::{
    Device, Nvml,
    error::{NvmlError, nvml_sym, nvml_try},
};

/// Exported by the library of `tests/fake-nvml`, and by no other.
const FAKE_MARK: &[u8] = b"plumbline_fake_nvml\0";

/// Whether the library that answers makes its answers up.
pub fn is_simulated(nvml: &Nvml) -> bool {
    // SAFETY: the symbol is looked up and dropped, neither called nor read, so its type does not matter.
    unsafe { nvml.lib().__library.get::<*const u8>(FAKE_MARK) }.is_ok()
}

/// Why the clocks are not higher: every bit that the driver sets. The wrapper drops those that it does not know.
pub fn throttle_bits(device: &Device<'_>) -> Result<u64, NvmlError> {
    let call = nvml_sym(device.nvml().lib().nvmlDeviceGetCurrentClocksThrottleReasons.as_ref())?;
    let mut bits = 0;
    // SAFETY: the handle belongs to the NVML that `device` borrows, so it is still open; `bits` outlives the call.
    nvml_try(unsafe { call(device.handle(), &raw mut bits) })?;
    Ok(bits)
}
