//! What an answer becomes, without NVML.

use std::collections::HashMap;

use expect_test::{Expect, expect};

use super::*;
use crate::{
    gpu::raw::{FabricInfo, FieldAnswer},
    series::gpu::{clock::CLOCK_HERTZ, power::POWER_WATTS},
};

/// One line per number: the series, its own labels, the value.
fn check(measures: &[Measure], expect: &Expect) {
    let line = |measure: &Measure| {
        let labels =
            if measure.labels.is_empty() { String::new() } else { format!("{{{}}}", measure.labels.join(",")) };
        format!("{}{labels} {}\n", measure.series.name.trim_start_matches("plumbline_gpu_"), measure.number)
    };
    expect.assert_eq(&measures.iter().map(line).collect::<String>());
}

/// The number that a field's value becomes.
fn number(call: &str, value: FieldAnswer) -> Option<f64> {
    let question = questions().find(|question| question.call.starts_with(call)).unwrap();
    let Ask::Field(field) = &question.ask else { panic!("{call} is no field") };
    field.number(&value, HashMap::new().entry("x"))
}

#[test]
fn every_question_tells_series_of_the_table_with_as_many_labels_as_they_have() {
    let mut calls = std::collections::BTreeSet::new();
    for question in questions() {
        assert!(calls.insert(question.call), "{} stands twice", question.call);
        assert!(!question.hardware.is_empty(), "{}", question.call);
        let of_gpu = crate::series::gpu::GPU.len();
        if let Ask::Field(field) = &question.ask {
            let own = field.measure(0, 0.0).labels.len();
            assert_eq!(field.series.labels.len(), of_gpu + own, "{}", question.call);
            assert!(question.call.contains(&format!("({}", field.id)), "{} is field {}", question.call, field.id);
        }
    }
}

#[test]
fn every_series_of_a_gpu_is_told_by_a_question_or_by_who_keeps_and_fuses() {
    let told: Vec<&str> = questions().flat_map(Question::tells).map(|(series, _)| series.name).collect();
    use crate::series::gpu::{holder, identity, xid};
    let of_others = [identity::ROWS, xid::ROWS, holder::ROWS].concat();
    for series in
        crate::series::TABLE.iter().copied().flatten().filter(|series| series.name.starts_with("plumbline_gpu_"))
    {
        assert!(told.contains(&series.name) || of_others.contains(series), "{} is told by nobody", series.name);
    }
}

#[test]
fn every_known_throttle_bit_has_a_series_and_unknown_ones_share_one() {
    check(
        &throttle::active(0x4 | 0x40 | 0x4000),
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
    let active = |bits| throttle::active(bits).iter().filter(|measure| measure.number > 0.0).count();
    assert_eq!(active(0), 0);
    assert_eq!(active(0x1ff), 9);
    assert_eq!(active(u64::MAX), 10);
}

#[test]
fn answers_come_in_base_units() {
    check(
        &[
            one_labelled(&CLOCK_HERTZ, "sm", Ok(1_755), from_mega).unwrap(),
            one(&POWER_WATTS, Ok(699_914), from_milli).unwrap(),
        ]
        .concat(),
        &expect![[r#"
            clock_hertz{sm} 1755000000
            power_watts 699.914
        "#]],
    );
}

#[test]
fn all_ones_and_shares_above_the_whole_are_no_answers() {
    assert!(one(&POWER_WATTS, Ok(u32::MAX), from_milli).is_err());
    assert!(known_wide(u64::MAX).is_err());
    assert_eq!((ratio(100).ok(), ratio(101).ok()), (Some(1.0), None));
    for wide in [FieldAnswer::U64(u64::MAX), FieldAnswer::U32(u32::MAX), FieldAnswer::U16(u16::MAX)] {
        assert_eq!(number("NVML_FI_DEV_ECC_DBE_VOL_TOTAL", wide), None, "{wide:?}");
    }
}

#[test]
fn throttle_time_is_nanoseconds_in_64_bits_and_nothing_else() {
    let seconds = |value| number("NVML_FI_DEV_PERF_POLICY_POWER", value);
    assert_eq!(seconds(FieldAnswer::U64(18_977_064_576)), Some(18.977_064_576));
    assert_eq!(seconds(FieldAnswer::U64(0)), Some(0.0));
    assert_eq!(seconds(FieldAnswer::I64(-1)), None);
    assert_eq!(seconds(FieldAnswer::U32(1)), None);
}

#[test]
fn a_memory_temperature_of_zero_is_a_missing_sensor_and_a_margin_below_zero_is_a_margin() {
    let celsius = |value| number("NVML_FI_DEV_MEMORY_TEMP", value);
    assert_eq!(celsius(FieldAnswer::U32(45)), Some(45.0));
    assert_eq!(celsius(FieldAnswer::U32(0)), None);
    assert_eq!(celsius(FieldAnswer::Double(f64::NAN)), None);
    let margin = |value| number("NVML_FI_DEV_TEMPERATURE_SHUTDOWN_TLIMIT", value);
    assert_eq!(margin(FieldAnswer::I32(-8)), Some(-8.0));
    // Said to be unsigned by some drivers.
    assert_eq!(margin(FieldAnswer::U32(u32::MAX - 7)), Some(-8.0));
}

#[test]
fn a_flag_is_zero_or_one() {
    let flag = |value| number("NVML_FI_DEV_REMAPPED_FAILURE", FieldAnswer::U32(value));
    assert_eq!([0, 1, 2].map(flag), [Some(0.0), Some(1.0), None]);
}

#[test]
fn a_fabric_is_told_as_far_as_it_is_known() {
    let of = |state, health_mask, health_summary| {
        fabric::tell(&FabricInfo {
            cluster_uuid: *b"0123456789abcdef",
            clique_id: 7,
            state,
            status: 0,
            health_mask,
            health_summary,
        })
    };
    check(&of(0, 0, 0), &expect![[""]]);
    check(
        &of(2, 0, 0),
        &expect![[r#"
            fabric_state 2
        "#]],
    );
    // Degraded bandwidth is true, route recovery false, the rest unknown; a wrong chassis serial number.
    check(
        &of(3, 0b0011_0000_1001, 2),
        &expect![[r#"
            fabric_state 3
            fabric_status 0
            fabric_health 2
            fabric_fault{degraded_bandwidth} 1
            fabric_fault{route_recovery} 0
            fabric_fault{configuration} 1
            fabric_info{30313233-3435-3637-3839-616263646566,7} 1
        "#]],
    );
}
