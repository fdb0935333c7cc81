//! Types of `nvml.h` (API version 13), by the names that they have there.

use std::ffi::{c_char, c_double, c_int, c_longlong, c_uint, c_ulonglong, c_void};

/// `nvmlReturn_t`.
pub(crate) type Return = c_uint;
pub(crate) const SUCCESS: Return = 0;
pub(crate) const UNINITIALIZED: Return = 1;
pub(crate) const INVALID_ARGUMENT: Return = 2;
pub(crate) const NOT_SUPPORTED: Return = 3;
pub(crate) const NOT_FOUND: Return = 6;
pub(crate) const INSUFFICIENT_SIZE: Return = 7;
pub(crate) const TIMEOUT: Return = 10;
pub(crate) const GPU_IS_LOST: Return = 15;
pub(crate) const ARGUMENT_VERSION_MISMATCH: Return = 25;
pub(crate) const UNKNOWN: Return = 999;

/// `nvmlDevice_t`: opaque; ours is the index plus one, and above it the place of a MIG device.
pub(crate) type Device = *mut c_void;

/// The version word of a versioned struct (`NVML_STRUCT_VERSION`).
#[expect(clippy::cast_possible_truncation, reason = "structs of nvml.h are smaller than 16 MiB")]
pub(crate) const fn version<T>(number: c_uint) -> c_uint {
    size_of::<T>() as c_uint | number << 24
}

/// `nvmlUtilization_t`.
#[repr(C)]
pub struct Utilization {
    pub(crate) gpu: c_uint,
    pub(crate) memory: c_uint,
}

/// `nvmlMemory_v2_t`.
#[repr(C)]
pub struct MemoryV2 {
    pub(crate) version: c_uint,
    pub(crate) total: c_ulonglong,
    pub(crate) reserved: c_ulonglong,
    pub(crate) free: c_ulonglong,
    pub(crate) used: c_ulonglong,
}

/// `nvmlPciInfo_t`.
#[repr(C)]
pub struct PciInfo {
    pub(crate) bus_id_legacy: [c_char; 16],
    pub(crate) domain: c_uint,
    pub(crate) bus: c_uint,
    pub(crate) device: c_uint,
    pub(crate) pci_device_id: c_uint,
    pub(crate) pci_subsystem_id: c_uint,
    pub(crate) bus_id: [c_char; 32],
}

/// `nvmlFieldValue_t`; of its value union we write the widest member.
#[repr(C)]
pub struct FieldValue {
    pub(crate) field_id: c_uint,
    pub(crate) scope_id: c_uint,
    pub(crate) timestamp_us: c_longlong,
    pub(crate) latency_us: c_longlong,
    pub(crate) value_type: c_uint,
    pub(crate) nvml_return: Return,
    pub(crate) value: c_ulonglong,
}

/// `nvmlProcessInfo_v2_t`, which `nvmlDeviceGetComputeRunningProcesses_v3` fills.
#[repr(C)]
pub struct ProcessInfo {
    pub(crate) pid: c_uint,
    pub(crate) used_gpu_memory: c_ulonglong,
    pub(crate) gpu_instance_id: c_uint,
    pub(crate) compute_instance_id: c_uint,
}

/// `nvmlProcessUtilizationSample_t`.
#[repr(C)]
pub struct ProcessUtilizationSample {
    pub(crate) pid: c_uint,
    pub(crate) timestamp_us: c_ulonglong,
    pub(crate) sm: c_uint,
    pub(crate) memory: c_uint,
    pub(crate) encoder: c_uint,
    pub(crate) decoder: c_uint,
}

/// `nvmlEccSramErrorStatus_v1_t`; three counters each are parity, more bits, corrected.
#[repr(C)]
pub struct SramErrorStatus {
    pub(crate) version: c_uint,
    pub(crate) aggregate: [c_ulonglong; 3],
    pub(crate) volatile: [c_ulonglong; 3],
    pub(crate) uncorrected_buckets: [c_ulonglong; 5],
    pub(crate) threshold_exceeded: c_uint,
}

/// `nvmlMarginTemperature_v1_t`.
#[repr(C)]
pub struct MarginTemperature {
    pub(crate) version: c_uint,
    pub(crate) celsius: c_int,
}

/// `nvmlGpuFabricInfo_v3_t`.
#[repr(C)]
pub struct FabricInfo {
    pub(crate) version: c_uint,
    pub(crate) cluster_uuid: [u8; 16],
    pub(crate) status: Return,
    pub(crate) clique_id: c_uint,
    pub(crate) state: u8,
    pub(crate) health_mask: c_uint,
    pub(crate) health_summary: u8,
}

/// `nvmlConfComputeSystemState_t`.
#[repr(C)]
pub struct ConfComputeState {
    pub(crate) environment: c_uint,
    pub(crate) cc_feature: c_uint,
    pub(crate) dev_tools_mode: c_uint,
}

/// `nvmlGpmSupport_t`.
#[repr(C)]
pub struct GpmSupport {
    pub(crate) version: c_uint,
    pub(crate) is_supported: c_uint,
}

/// `nvmlGpmMetric_t`; of its strings we write nothing.
#[repr(C)]
pub struct GpmMetric {
    pub(crate) id: c_uint,
    pub(crate) nvml_return: Return,
    pub(crate) value: c_double,
    pub(crate) names: [*const c_char; 3],
}

/// `NVML_GPM_METRIC_MAX` of API version 13.
pub(crate) const GPM_METRICS: usize = 210;

/// `nvmlGpmMetricsGet_t`.
#[repr(C)]
pub struct GpmMetricsGet {
    pub(crate) version: c_uint,
    pub(crate) count: c_uint,
    pub(crate) before: *mut c_void,
    pub(crate) now: *mut c_void,
    pub(crate) metrics: [GpmMetric; GPM_METRICS],
}

/// `nvmlEventData_t`.
#[repr(C)]
pub struct EventData {
    pub(crate) device: Device,
    pub(crate) event_type: c_ulonglong,
    pub(crate) event_data: c_ulonglong,
    pub(crate) gpu_instance_id: c_uint,
    pub(crate) compute_instance_id: c_uint,
}

const _: () = assert!(size_of::<MemoryV2>() == 40 && size_of::<PciInfo>() == 68 && size_of::<FieldValue>() == 40);
const _: () = assert!(size_of::<ProcessInfo>() == 24 && size_of::<ProcessUtilizationSample>() == 32);
const _: () = assert!(size_of::<SramErrorStatus>() == 104);
const _: () = assert!(size_of::<FabricInfo>() == 40 && size_of::<EventData>() == 32 && size_of::<GpmMetric>() == 40);
