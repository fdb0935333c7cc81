//! `nvmlDeviceGetFieldValues`.

use std::ffi::{c_int, c_longlong, c_uint};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::abi::{Device, FieldValue, INVALID_ARGUMENT, NOT_SUPPORTED, Return, SUCCESS};
use crate::ask;
use crate::scenario::State;

/// `nvmlValueType_t`.
const VALUE_TYPE_U32: c_uint = 1;
const VALUE_TYPE_U64: c_uint = 3;
const VALUE_TYPE_I32: c_uint = 5;

/// `NVML_FI_DEV_MEMORY_TEMP`, `NVML_FI_DEV_ECC_DBE_VOL_TOTAL`.
const FIELD_MEMORY_TEMP: c_uint = 82;
const FIELD_ECC_DBE: c_uint = 4;

/// Fields that are asked for by link (`scopeId`): data of all links is their sum, of none that of link 0.
const THROUGHPUT: std::ops::RangeInclusive<c_uint> = 138..=141;
const ALL_LINKS: c_uint = c_uint::MAX;

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
        let value = value(scenario.old_field_id(entry.field_id), entry.scope_id, &now);
        match value {
            Some((value_type, value)) => {
                (entry.nvml_return, entry.value_type, entry.value) = (SUCCESS, value_type, value);
            }
            None => entry.nvml_return = NOT_SUPPORTED,
        }
    }
    SUCCESS
}

/// Type and bits. Little-endian, so that the union's narrow member is the low half of its wide one.
fn value(field: c_uint, scope: c_uint, now: &State) -> Option<(c_uint, u64)> {
    let of_link = || {
        let links = now.link_fields.get(&field)?;
        match scope {
            ALL_LINKS => Some(links.iter().sum()),
            link => links.get(link as usize).copied(),
        }
    };
    match field {
        // The power of the module around the GPU: none of ours has one.
        185 | 186 if scope != 0 => None,
        FIELD_MEMORY_TEMP if now.memory_temperature_celsius.is_some() => {
            now.memory_temperature_celsius.map(|celsius| (VALUE_TYPE_U32, celsius.into()))
        }
        FIELD_ECC_DBE if now.ecc_uncorrected.is_some() => now.ecc_uncorrected.map(|errors| (VALUE_TYPE_U64, errors)),
        field if now.throttle_ns.contains_key(&field) => {
            now.throttle_ns.get(&field).map(|&nanoseconds| (VALUE_TYPE_U64, nanoseconds))
        }
        field => {
            // What a scenario gives as one number is that of all links; a link without a scope of its own is the first.
            let sum = now.fields.get(&field).copied();
            let of_first =
                |number: i64| if THROUGHPUT.contains(&field) && scope != ALL_LINKS { number / 18 } else { number };
            let number = of_link().or_else(|| sum.map(of_first))?;
            Some(match field {
                142..=145 | 147 | 164 | 170..=172 | 29..=31 | 185 | 186 | 91 | 230 => {
                    (VALUE_TYPE_U32, number.cast_unsigned() & 0xFFFF_FFFF)
                }
                193..=196 => (VALUE_TYPE_I32, number.cast_unsigned() & 0xFFFF_FFFF),
                _ => (VALUE_TYPE_U64, number.cast_unsigned()),
            })
        }
    }
}
