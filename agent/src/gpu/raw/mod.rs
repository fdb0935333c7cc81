//! What nvml-wrapper does not wrap or narrows: the only `unsafe` of the GPU stage.
#![expect(unsafe_code, reason = "calls into the NVML library that nvml-wrapper does not offer")]

pub mod events;

use std::mem;

use nvml_wrapper::{
    Device, Nvml,
    error::{NvmlError, nvml_sym, nvml_try},
};
use nvml_wrapper_sys::bindings as sys;

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

/// A field and what of the GPU is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FieldRequest {
    /// In the driver's numbering.
    pub id: u32,
    pub scope: u64,
}

/// Fields that are asked for in one call: a bound on how long one call holds the driver.
pub const FIELDS_PER_CALL: usize = 100;

/// A field's value (`nvmlValue_t`), by its type (`nvmlValueType_t`).
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum FieldAnswer {
    Double(f64),
    U16(u16),
    U32(u32),
    U64(u64),
    I32(i32),
    I64(i64),
}

impl FieldAnswer {
    /// How NVML says that it does not know.
    pub const fn is_all_ones(self) -> bool {
        matches!(self, Self::U16(u16::MAX) | Self::U32(u32::MAX) | Self::U64(u64::MAX))
    }

    pub const fn is_wide(self) -> bool {
        matches!(self, Self::U64(_) | Self::I64(_))
    }

    /// A number of things; `None` for a negative or broken one.
    pub fn unsigned(self) -> Option<u64> {
        match self {
            Self::U16(number) => Some(number.into()),
            Self::U32(number) => Some(number.into()),
            Self::U64(number) => Some(number),
            Self::I32(number) => u64::try_from(number).ok(),
            Self::I64(number) => u64::try_from(number).ok(),
            Self::Double(_) => None,
        }
    }

    #[expect(clippy::cast_precision_loss, reason = "temperatures are small")]
    pub fn float(self) -> Option<f64> {
        let number = match self {
            Self::Double(number) => number,
            Self::U16(number) => number.into(),
            // Below zero in a field that is said to be unsigned: its low half is what the driver wrote.
            Self::U32(number) => number.cast_signed().into(),
            Self::I32(number) => number.into(),
            Self::U64(number) => number as f64,
            Self::I64(number) => number as f64,
        };
        number.is_finite().then_some(number)
    }
}

/// One answer for each request, in their order: NVML may answer with another id than was asked for.
pub fn field_values(
    device: &Device<'_>,
    requests: &[FieldRequest],
) -> Result<Vec<Result<FieldAnswer, NvmlError>>, NvmlError> {
    let call = nvml_sym(device.nvml().lib().nvmlDeviceGetFieldValues.as_ref())?;
    let blank = |request: &FieldRequest| {
        // SAFETY: a struct of integers and a union of numbers, for all of which zero is a value.
        let mut value: sys::nvmlFieldValue_t = unsafe { mem::zeroed() };
        value.fieldId = request.id;
        value.scopeId = u32::try_from(request.scope).unwrap_or(u32::MAX);
        // What a driver does not fill in is no answer.
        value.nvmlReturn = sys::nvmlReturn_enum_NVML_ERROR_UNKNOWN;
        value
    };
    let mut values: Vec<sys::nvmlFieldValue_t> = requests.iter().map(blank).collect();
    let count = i32::try_from(values.len()).unwrap_or(i32::MAX);
    // SAFETY: the handle belongs to the NVML that `device` borrows; `values` has `count` entries and outlives the call.
    nvml_try(unsafe { call(device.handle(), count, values.as_mut_ptr()) })?;
    Ok(values.iter().map(field_answer).collect())
}

fn field_answer(value: &sys::nvmlFieldValue_t) -> Result<FieldAnswer, NvmlError> {
    nvml_try(value.nvmlReturn)?;
    let union = value.value;
    // SAFETY: every member of the union is a number, for which any bits are a value, and the whole of it was zeroed.
    unsafe {
        Ok(match value.valueType {
            sys::nvmlValueType_enum_NVML_VALUE_TYPE_DOUBLE => FieldAnswer::Double(union.dVal),
            sys::nvmlValueType_enum_NVML_VALUE_TYPE_UNSIGNED_INT => FieldAnswer::U32(union.uiVal),
            sys::nvmlValueType_enum_NVML_VALUE_TYPE_UNSIGNED_LONG => FieldAnswer::U64(union.ulVal),
            sys::nvmlValueType_enum_NVML_VALUE_TYPE_UNSIGNED_LONG_LONG => FieldAnswer::U64(union.ullVal),
            sys::nvmlValueType_enum_NVML_VALUE_TYPE_SIGNED_LONG_LONG => FieldAnswer::I64(union.sllVal),
            sys::nvmlValueType_enum_NVML_VALUE_TYPE_SIGNED_INT => FieldAnswer::I32(union.siVal),
            sys::nvmlValueType_enum_NVML_VALUE_TYPE_UNSIGNED_SHORT => FieldAnswer::U16(union.usVal),
            _ => return Err(NvmlError::NoData),
        })
    }
}

/// Degrees up to the nearest slow-down.
pub fn margin_temperature(device: &Device<'_>) -> Result<i32, NvmlError> {
    let call = nvml_sym(device.nvml().lib().nvmlDeviceGetMarginTemperature.as_ref())?;
    let mut margin =
        sys::nvmlMarginTemperature_t { version: version::<sys::nvmlMarginTemperature_t>(1), marginTemperature: 0 };
    // SAFETY: the handle belongs to the NVML that `device` borrows; `margin` has the version that its layout is of.
    nvml_try(unsafe { call(device.handle(), &raw mut margin) })?;
    Ok(margin.marginTemperature)
}

/// The GPU's place in an NVLink fabric.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FabricInfo {
    pub cluster_uuid: [u8; 16],
    pub clique_id: u32,
    pub state: u8,
    /// An `nvmlReturn_t`; it means something when the state is 3.
    pub status: u32,
    pub health_mask: u32,
    pub health_summary: u8,
}

/// `nvmlDeviceGetGpuFabricInfoV`, in the third version of its struct and else in the second, which has no summary.
pub fn fabric_info(device: &Device<'_>) -> Result<FabricInfo, NvmlError> {
    let call = nvml_sym(device.nvml().lib().nvmlDeviceGetGpuFabricInfoV.as_ref())?;
    // SAFETY: a struct of numbers, for which zero is a value.
    let mut info: sys::nvmlGpuFabricInfoV_t = unsafe { mem::zeroed() };
    info.version = version::<sys::nvmlGpuFabricInfo_v3_t>(3);
    // SAFETY: the handle belongs to the NVML that `device` borrows; `info` has the layout of the version that it says.
    let mut code = unsafe { call(device.handle(), &raw mut info) };
    if code == sys::nvmlReturn_enum_NVML_ERROR_ARGUMENT_VERSION_MISMATCH {
        info.version = version::<sys::nvmlGpuFabricInfo_v2_t>(2);
        // SAFETY: as above; the second version is the beginning of the third.
        code = unsafe { call(device.handle(), &raw mut info) };
    }
    nvml_try(code)?;
    Ok(FabricInfo {
        cluster_uuid: info.clusterUuid,
        clique_id: info.cliqueId,
        state: info.state,
        status: info.status,
        health_mask: info.healthMask,
        health_summary: info.healthSummary,
    })
}

/// Errors of caches and registers since the driver was loaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SramErrors {
    pub corrected: u64,
    pub uncorrected_parity: u64,
    pub uncorrected_secded: u64,
    pub is_threshold_exceeded: bool,
}

/// `nvmlDeviceGetSramEccErrorStatus`, which is for root.
pub fn sram_errors(device: &Device<'_>) -> Result<SramErrors, NvmlError> {
    let call = nvml_sym(device.nvml().lib().nvmlDeviceGetSramEccErrorStatus.as_ref())?;
    // SAFETY: a struct of numbers, for which zero is a value.
    let mut status: sys::nvmlEccSramErrorStatus_t = unsafe { mem::zeroed() };
    status.version = version::<sys::nvmlEccSramErrorStatus_t>(1);
    // SAFETY: the handle belongs to the NVML that `device` borrows; `status` has the version that its layout is of.
    nvml_try(unsafe { call(device.handle(), &raw mut status) })?;
    Ok(SramErrors {
        corrected: status.volatileCor,
        uncorrected_parity: status.volatileUncParity,
        uncorrected_secded: status.volatileUncSecDed,
        is_threshold_exceeded: status.bThresholdExceeded != 0,
    })
}

/// Which GPU instance a MIG device is of.
pub fn gpu_instance_id(device: &Device<'_>) -> Result<u32, NvmlError> {
    let call = nvml_sym(device.nvml().lib().nvmlDeviceGetGpuInstanceId.as_ref())?;
    let mut id = 0;
    // SAFETY: the handle belongs to the NVML that `device` borrows; `id` outlives the call.
    nvml_try(unsafe { call(device.handle(), &raw mut id) })?;
    Ok(id)
}

/// Which compute instance of its GPU instance a MIG device is.
pub fn compute_instance_id(device: &Device<'_>) -> Result<u32, NvmlError> {
    let call = nvml_sym(device.nvml().lib().nvmlDeviceGetComputeInstanceId.as_ref())?;
    let mut id = 0;
    // SAFETY: the handle belongs to the NVML that `device` borrows; `id` outlives the call.
    nvml_try(unsafe { call(device.handle(), &raw mut id) })?;
    Ok(id)
}

/// Whether the driver runs with confidential computing.
pub fn is_confidential(nvml: &Nvml) -> Result<bool, NvmlError> {
    let call = nvml_sym(nvml.lib().nvmlSystemGetConfComputeState.as_ref())?;
    let mut state = sys::nvmlConfComputeSystemState_t { environment: 0, ccFeature: 0, devToolsMode: 0 };
    // SAFETY: NVML is open as long as it is borrowed; `state` outlives the call.
    nvml_try(unsafe { call(&raw mut state) })?;
    Ok(state.ccFeature != 0)
}

/// The version word of a versioned struct: its size, and its number in the upper byte (`NVML_STRUCT_VERSION`).
#[expect(clippy::cast_possible_truncation, reason = "structs of nvml.h are smaller than 16 MiB")]
const fn version<T>(number: u32) -> u32 {
    size_of::<T>() as u32 | number << 24
}
