//! NVML readings as points, without NVML.

use expect_test::{Expect, expect};
use nvml_wrapper::enums::device::SampleValue;

use super::*;

/// One line per number: the series, its own label, the value.
fn check(measures: &[Measure], expect: &Expect) {
    let line = |measure: &Measure| {
        let label = measure.label.as_ref().map_or(String::new(), |label| format!("{{{label}}}"));
        format!("{}{label} {}\n", measure.series.name.trim_start_matches("plumbline_gpu_"), measure.number)
    };
    expect.assert_eq(&measures.iter().map(line).collect::<String>());
}

fn field(name: &str, value: &SampleValue) -> Option<Measure> {
    FIELDS.iter().find(|field| field.name == name).unwrap().measure(value)
}

#[test]
fn every_known_throttle_bit_has_a_series_and_unknown_ones_share_one() {
    check(
        &throttle_reasons(0x4 | 0x40 | 0x4000),
        &expect![[r#"
            throttle_active{idle} 0
            throttle_active{application_clocks} 0
            throttle_active{sw_power_cap} 1
            throttle_active{hw_slowdown} 0
            throttle_active{sync_boost} 0
            throttle_active{sw_thermal} 0
            throttle_active{hw_thermal} 1
            throttle_active{hw_power_brake} 0
            throttle_active{display_clocks} 0
            throttle_active{other} 1
        "#]],
    );
}

#[test]
fn all_known_bits_leave_the_other_reason_off() {
    let active = |bits| throttle_reasons(bits).iter().filter(|measure| measure.number > 0.0).count();
    assert_eq!(active(0), 0);
    assert_eq!(active(0x1ff), 9);
    assert_eq!(active(u64::MAX), 10);
}

#[test]
fn answers_come_in_base_units() {
    check(
        &[
            one(&gpu::SM_CLOCK_HERTZ, Ok(1_755), from_mega).unwrap(),
            one(&gpu::POWER_WATTS, Ok(699_914), from_milli).unwrap(),
        ]
        .concat(),
        &expect![[r#"
            sm_clock_hertz 1755000000
            power_watts 699.914
        "#]],
    );
}

#[test]
fn throttle_time_is_nanoseconds_in_64_bits_and_nothing_else() {
    let seconds = |value| field("NVML_FI_DEV_PERF_POLICY_POWER", &value).map(|measure| measure.number);
    assert_eq!(seconds(SampleValue::U64(18_977_064_576)), Some(18.977_064_576));
    assert_eq!(seconds(SampleValue::U64(0)), Some(0.0));
    assert_eq!(seconds(SampleValue::I64(-1)), None);
    assert_eq!(seconds(SampleValue::U32(1)), None);
}

#[test]
fn a_memory_temperature_of_zero_is_a_missing_sensor() {
    let celsius = |value| field("NVML_FI_DEV_MEMORY_TEMP", &value).map(|measure| measure.number);
    assert_eq!(celsius(SampleValue::U32(45)), Some(45.0));
    assert_eq!(celsius(SampleValue::U32(0)), None);
    assert_eq!(celsius(SampleValue::F64(f64::NAN)), None);
}

#[test]
fn labels_begin_with_the_gpu_and_whether_it_is_simulated() {
    let entity = Entity { uuid: "GPU-1".to_owned(), is_simulated: true };
    let point = entity.point(&throttle_reasons(0x1)[0]);
    assert_eq!(point.labels, ["GPU-1", "true", "idle"]);
    assert_eq!(point.series.labels, ["gpu", "simulated", "reason"]);
}
