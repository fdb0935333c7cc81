//! Power and energy.

use nvml_wrapper::sys_exports::field_id as id;

use super::{
    ALL, AMPERE, GRACE, Question, Round, exact, field,
    field::{Field, FieldUnit, Scope},
    from_milli, getter, known_wide, measure, one,
};
use crate::series::gpu::power::{
    ENERGY_JOULES_TOTAL, MODULE_POWER_WATTS, POWER_AVERAGE_WATTS, POWER_INSTANT_WATTS, POWER_LIMIT_WATTS, POWER_WATTS,
};

/// `scopeId` of NVML_FI_DEV_POWER_INSTANT for the module around the GPU (`NVML_POWER_SCOPE_MODULE`).
const MODULE: Scope = Scope::Of(1);

pub(super) static QUESTIONS: &[Question] = &[
    getter("nvmlDeviceGetPowerUsage", Round::Light, ALL, &[(&POWER_WATTS, "")], |gpu| {
        one(&POWER_WATTS, gpu.device.power_usage(), from_milli)
    }),
    field(
        "NVML_FI_DEV_POWER_INSTANT (186)",
        Round::Light,
        AMPERE,
        Field::of_gpu(id::NVML_FI_DEV_POWER_INSTANT, &POWER_INSTANT_WATTS, &[], FieldUnit::Milliwatts),
    ),
    field(
        "NVML_FI_DEV_POWER_AVERAGE (185)",
        Round::Light,
        AMPERE,
        Field::of_gpu(id::NVML_FI_DEV_POWER_AVERAGE, &POWER_AVERAGE_WATTS, &[], FieldUnit::Milliwatts),
    ),
    field(
        "NVML_FI_DEV_POWER_INSTANT (186), scope 1",
        Round::Full,
        GRACE,
        Field::of_gpu(id::NVML_FI_DEV_POWER_INSTANT, &MODULE_POWER_WATTS, &[], FieldUnit::Milliwatts)
            .with_scope(MODULE),
    ),
    getter("nvmlDeviceGetEnforcedPowerLimit", Round::Full, ALL, &[(&POWER_LIMIT_WATTS, "")], |gpu| {
        one(&POWER_LIMIT_WATTS, gpu.device.enforced_power_limit(), from_milli)
    }),
    getter(
        "nvmlDeviceGetTotalEnergyConsumption",
        Round::Light,
        "Volta and newer",
        &[(&ENERGY_JOULES_TOTAL, "")],
        |gpu| {
            let millijoules = known_wide(gpu.device.total_energy_consumption()?)?;
            Ok(vec![measure(&ENERGY_JOULES_TOTAL, exact(millijoules) / 1e3)])
        },
    ),
];
