//! What a GPU answers, and what number that is.

use std::collections::BTreeMap;

use expect_test::expect;
use plumbline::{message::Message, series::Point};

use crate::bench::*;

#[test]
fn every_answer_of_a_gpu_becomes_a_series_and_all_are_marked_as_simulated() {
    let points = without_dcgm(Bench::new(THROTTLED).points(OF_THROTTLED));
    assert!(points.iter().all(|point| point.labels[..3] == [OF_THROTTLED, "0", "true"]), "{points:?}");
    check(
        &render(&points),
        &expect![[r#"
        clock_hertz{clock=memory} 2619000000
        clock_hertz{clock=sm} 1590000000
        clock_max_hertz{clock=sm} 1980000000
        energy_joules_total{} …
        memory_free_bytes{} 4990173184
        memory_reserved_bytes{} 0
        memory_total_bytes{} 85520809984
        memory_used_bytes{} 80530636800
        memory_utilization_ratio{} 0.71
        pcie_replays_total{} 3
        power_limit_watts{} 700
        power_watts{} 699
        round_seconds{round=full} …
        round_seconds{round=light} …
        temperature_celsius{sensor=gpu} 79
        temperature_celsius{sensor=memory} 88
        throttle_active{reason=application_clocks} 0
        throttle_active{reason=display_clocks} 0
        throttle_active{reason=hw_power_brake} 0
        throttle_active{reason=hw_slowdown} 0
        throttle_active{reason=hw_thermal} 0
        throttle_active{reason=idle} 0
        throttle_active{reason=other} 0
        throttle_active{reason=sw_power_cap} 0
        throttle_active{reason=sw_thermal} 0
        throttle_active{reason=sync_boost} 0
        throttle_seconds_total{reason=application_clocks} …
        throttle_seconds_total{reason=base_clocks} …
        throttle_seconds_total{reason=board_limit} …
        throttle_seconds_total{reason=hw_power_brake} …
        throttle_seconds_total{reason=hw_thermal} …
        throttle_seconds_total{reason=low_utilization} …
        throttle_seconds_total{reason=reliability} …
        throttle_seconds_total{reason=sw_power_cap} …
        throttle_seconds_total{reason=sw_thermal} …
        throttle_seconds_total{reason=sync_boost} …
        throttle_seconds_total{reason=thermal} …
        utilization_ratio{} 1
    "#]],
    );
}

#[test]
fn what_an_h100_tells_under_load() {
    let scenario = H100X8.replace("at_s: 5", "at_s: 0");
    let mut bench = Bench::new(&scenario);
    // GPM speaks of the time between two readings.
    bench.points(FIRST);
    let points = without_dcgm(bench.points(FIRST));
    let without_links: Vec<Point> = points
        .into_iter()
        .filter(|point| !point.series.labels.contains(&"link") || point.labels.last().unwrap() == "17")
        .filter(|point| !point.series.name.ends_with("_bytes_total"))
        .collect();
    check(
        &render(&without_links),
        &expect![[r#"
            clock_application_hertz{clock=memory} 2619000000
            clock_application_hertz{clock=sm} 1980000000
            clock_hertz{clock=memory} 2619000000
            clock_hertz{clock=sm} 1755000000
            clock_hertz{clock=video} 765000000
            clock_max_hertz{clock=memory} 2619000000
            clock_max_hertz{clock=sm} 1980000000
            clock_max_hertz{clock=video} 1545000000
            confidential_compute{} 0
            dram_active_ratio{} 0.62
            energy_joules_total{} …
            fabric_fault{fault=access_timeout} 0
            fabric_fault{fault=configuration} 0
            fabric_fault{fault=degraded_bandwidth} 0
            fabric_fault{fault=route_recovery} 0
            fabric_fault{fault=route_unhealthy} 0
            fabric_health{} 1
            fabric_info{cluster=706c756d-626c-696e-6520-666162726963,clique=0} 1
            fabric_state{} 3
            fabric_status{} 0
            graphics_active_ratio{} 0.99
            memory_errors_by_location_total{kind=corrected,location=dram} 0
            memory_errors_by_location_total{kind=corrected,location=l1} 0
            memory_errors_by_location_total{kind=corrected,location=l2} 0
            memory_errors_by_location_total{kind=corrected,location=registers} 0
            memory_errors_by_location_total{kind=corrected,location=texture} 0
            memory_errors_by_location_total{kind=uncorrected,location=cbu} 0
            memory_errors_by_location_total{kind=uncorrected,location=dram} 0
            memory_errors_by_location_total{kind=uncorrected,location=l1} 0
            memory_errors_by_location_total{kind=uncorrected,location=l2} 0
            memory_errors_by_location_total{kind=uncorrected,location=registers} 0
            memory_errors_by_location_total{kind=uncorrected,location=texture} 0
            memory_errors_ever_total{kind=corrected} 0
            memory_errors_ever_total{kind=uncorrected} 0
            memory_errors_total{kind=corrected} 0
            memory_errors_total{kind=uncorrected} 0
            memory_free_bytes{} 11849957376
            memory_reserved_bytes{} 656408576
            memory_total_bytes{} 85520809984
            memory_used_bytes{} 73014444032
            memory_utilization_ratio{} 0.62
            nvlink_errors_total{error=crc_data} 0
            nvlink_errors_total{error=crc_flit} 0
            nvlink_errors_total{error=ecc_data} 0
            nvlink_errors_total{error=recovery} 0
            nvlink_errors_total{error=replay} 0
            nvlink_link_errors_total{error=crc,link=17} 0
            nvlink_link_errors_total{error=replay,link=17} 0
            nvlink_recoveries_total{outcome=unknown,link=17} 0
            nvlink_speed_bytes_per_second{link=17} 26562000000
            nvlink_switch_links{} 18
            nvlink_throughput_bytes_per_second{direction=receive} 95420416000
            nvlink_throughput_bytes_per_second{direction=transmit} 95420416000
            nvlink_up{link=17} 1
            pcie_errors_total{error=bad_dllp} 0
            pcie_errors_total{error=bad_tlp} 0
            pcie_errors_total{error=correctable} 0
            pcie_errors_total{error=fatal} 0
            pcie_errors_total{error=l0_to_recovery} 12
            pcie_errors_total{error=lane} 0
            pcie_errors_total{error=lcrc} 0
            pcie_errors_total{error=naks_received} 0
            pcie_errors_total{error=naks_sent} 0
            pcie_errors_total{error=non_fatal} 0
            pcie_errors_total{error=receiver} 0
            pcie_errors_total{error=replay_rollover} 0
            pcie_errors_total{error=unsupported_request} 0
            pcie_link_generation_max{} 5
            pcie_link_generation{} 5
            pcie_link_width_max{} 16
            pcie_link_width{} 16
            pcie_replays_total{} 0
            pcie_throughput_bytes_per_second{direction=receive} 1268776960
            pcie_throughput_bytes_per_second{direction=transmit} 870318080
            performance_state{} 0
            pipe_active_ratio{pipe=fp16} 0.02
            pipe_active_ratio{pipe=fp32} 0.03
            pipe_active_ratio{pipe=fp64} 0
            pipe_active_ratio{pipe=integer} 0.04
            pipe_active_ratio{pipe=tensor_fp16} 0.71
            pipe_active_ratio{pipe=tensor_fp64} 0
            pipe_active_ratio{pipe=tensor_int} 0
            pipe_active_ratio{pipe=tensor} 0.71
            power_average_watts{} 655
            power_instant_watts{} 671
            power_limit_watts{} 700
            power_watts{} 655
            process_memory_bytes{GPU_I_ID=,type=compute,pid=4242,process=,pod=,namespace=,container=} 72477573120
            process_utilization_ratio{unit=decoder,pid=4242,process=,pod=,namespace=,container=} 0
            process_utilization_ratio{unit=encoder,pid=4242,process=,pod=,namespace=,container=} 0
            process_utilization_ratio{unit=memory,pid=4242,process=,pod=,namespace=,container=} 0
            process_utilization_ratio{unit=sm,pid=4242,process=,pod=,namespace=,container=} 0.97
            processes{type=compute} 1
            recovery_action{} 0
            remapped_rows_total{kind=corrected} 0
            remapped_rows_total{kind=uncorrected} 0
            round_seconds{round=full} …
            round_seconds{round=light} …
            row_remap_failed{} 0
            row_remap_pending{} 0
            sm_active_ratio{} 0.96
            sm_occupancy_ratio{} 0.31
            temperature_celsius{sensor=gpu} 61
            temperature_celsius{sensor=memory} 63
            temperature_margin_celsius{} 26
            temperature_margin_limit_celsius{limit=gpu_max} 0
            temperature_margin_limit_celsius{limit=memory_max} 0
            temperature_margin_limit_celsius{limit=shutdown} -8
            temperature_margin_limit_celsius{limit=slowdown} -2
            throttle_active{reason=application_clocks} 0
            throttle_active{reason=display_clocks} 0
            throttle_active{reason=hw_power_brake} 0
            throttle_active{reason=hw_slowdown} 0
            throttle_active{reason=hw_thermal} 0
            throttle_active{reason=idle} 0
            throttle_active{reason=other} 0
            throttle_active{reason=sw_power_cap} 1
            throttle_active{reason=sw_thermal} 0
            throttle_active{reason=sync_boost} 0
            throttle_seconds_total{reason=application_clocks} …
            throttle_seconds_total{reason=base_clocks} …
            throttle_seconds_total{reason=board_limit} …
            throttle_seconds_total{reason=hw_power_brake} …
            throttle_seconds_total{reason=hw_thermal} …
            throttle_seconds_total{reason=low_utilization} …
            throttle_seconds_total{reason=reliability} …
            throttle_seconds_total{reason=sw_power_cap} …
            throttle_seconds_total{reason=sw_thermal} …
            throttle_seconds_total{reason=sync_boost} …
            throttle_seconds_total{reason=thermal} …
            utilization_ratio{} 1
            video_utilization_ratio{unit=decoder} 0
            video_utilization_ratio{unit=encoder} 0
        "#]],
    );
}

#[test]
fn what_a_b200_counts_on_its_nvlinks_is_of_the_fifth_generation() {
    let points = Bench::new(B200X8).points(FIRST);
    let errors: Vec<String> =
        by_label(&points, "nvlink_link_errors_total").into_keys().filter(|key| key.ends_with(",0")).collect();
    check(
        &errors.join("\n"),
        &expect![[r#"
        buffer_overrun,0
        effective,0
        local_link_integrity,0
        malformed_packet,0
        receive,0
        receive_general,0
        receive_remote,0
        symbol,0
        transmit_discard,0
        vl15_dropped,0"#]],
    );
    assert_eq!(by_label(&points, "nvlink_errors_total"), BTreeMap::new());
    let recoveries: Vec<String> =
        by_label(&points, "nvlink_recoveries_total").into_keys().filter(|key| key.ends_with(",0")).collect();
    assert_eq!(recoveries, ["failed,0", "succeeded,0"]);
}

#[test]
fn what_an_l4_does_not_have_is_absent_with_the_reason_and_never_zero() {
    let mut bench = Bench::new(L4);
    let points = bench.points(OF_L4);
    for part in ["nvlink", "c2c", "fabric", "sm_active", "tensor", "temperature_celsius{sensor=memory}"] {
        assert!(!render(&points).contains(part), "{part}");
    }
    let view = bench.view("refusals", |view| view.gpus.iter().any(|gpu| !gpu.refusals.is_empty()));
    let refused: Vec<String> = view.gpus[0]
        .refusals
        .iter()
        .filter(|refusal| !refusal.question.contains("ECC") && !refusal.question.contains("_COUNT_"))
        .map(|refusal| format!("{}: {} ({})\n", refusal.question, refusal.reason, refusal.hardware))
        .collect();
    check(
        &refused.concat(),
        &expect![[r#"
            NVML_FI_DEV_C2C_LINK_COUNT (170): this GPU does not support it (Grace Hopper, Grace Blackwell)
            NVML_FI_DEV_MEMORY_TEMP (82): this GPU does not support it (GPUs with HBM)
            NVML_FI_DEV_NVLINK_THROUGHPUT_DATA_RX (139), scope 0xFFFFFFFF: this GPU does not support it (GPUs with NVLink)
            NVML_FI_DEV_NVLINK_THROUGHPUT_DATA_TX (138), scope 0xFFFFFFFF: this GPU does not support it (GPUs with NVLink)
            NVML_FI_DEV_NVLINK_THROUGHPUT_RAW_RX (141), scope 0xFFFFFFFF: this GPU does not support it (GPUs with NVLink)
            NVML_FI_DEV_NVLINK_THROUGHPUT_RAW_TX (140), scope 0xFFFFFFFF: this GPU does not support it (GPUs with NVLink)
            NVML_FI_DEV_NVSWITCH_CONNECTED_LINK_COUNT (147): this GPU does not support it (GPUs with NVLink)
            NVML_FI_DEV_PCIE_L0_TO_RECOVERY_COUNTER (169): this GPU does not support it (Hopper and newer)
            NVML_FI_DEV_PCIE_REPLAY_ROLLOVER_COUNTER (95): this GPU does not support it (Hopper and newer)
            NVML_FI_DEV_POWER_INSTANT (186), scope 1: this GPU does not support it (Grace Hopper, Grace Blackwell)
            NVML_FI_DEV_RETIRED_DBE (30): this GPU does not support it (GPUs with ECC before Ampere)
            NVML_FI_DEV_RETIRED_PENDING (31): this GPU does not support it (GPUs with ECC before Ampere)
            NVML_FI_DEV_RETIRED_SBE (29): this GPU does not support it (GPUs with ECC before Ampere)
            NVML_FI_DEV_TEMPERATURE_GPU_MAX_TLIMIT (196): this GPU does not support it (Ada, Hopper and newer)
            NVML_FI_DEV_TEMPERATURE_MEM_MAX_TLIMIT (195): this GPU does not support it (Ada, Hopper and newer)
            NVML_FI_DEV_TEMPERATURE_SHUTDOWN_TLIMIT (193): this GPU does not support it (Ada, Hopper and newer)
            NVML_FI_DEV_TEMPERATURE_SLOWDOWN_TLIMIT (194): this GPU does not support it (Ada, Hopper and newer)
            nvmlDeviceGetGpuFabricInfoV: this GPU does not support it (Hopper and newer)
            nvmlDeviceGetMarginTemperature: this GPU does not support it (Ada, Hopper and newer)
            nvmlDeviceGetMigMode: this GPU does not support it (data-centre GPUs since Ampere)
            nvmlDeviceGetNvLinkState: this GPU does not support it (GPUs with NVLink)
            nvmlGpmMetricsGet: this GPU does not support it (Hopper and newer)
            nvmlSystemGetConfComputeState: this GPU does not support it (Hopper and newer)
        "#]],
    );
}

#[test]
fn what_an_l4_tells_otherwise_than_an_h100() {
    let points = without_dcgm(Bench::new(L4).points(OF_L4));
    let parts = ["pcie_throughput", "sram_", "process_memory"];
    let of_parts = points.into_iter().filter(|point| parts.iter().any(|part| point.series.name.contains(part)));
    check(
        &render(&of_parts.collect::<Vec<Point>>()),
        &expect![[r#"
        pcie_throughput_bytes_per_second{direction=receive} 48000000
        pcie_throughput_bytes_per_second{direction=transmit} 12000000
        process_memory_bytes{GPU_I_ID=,type=compute,pid=4242,process=,pod=,namespace=,container=} 9126805504
        process_memory_bytes{GPU_I_ID=,type=mps,pid=4243,process=,pod=,namespace=,container=} 134217728
        sram_errors_total{kind=corrected} 3
        sram_errors_total{kind=uncorrected_parity} 1
        sram_errors_total{kind=uncorrected_secded} 2
        sram_threshold_exceeded{} 0
    "#]],
    );
}

#[test]
fn all_gpus_of_a_kind_are_read_each_by_itself() {
    let mut bench = Bench::new(H100X8);
    let view = bench.view("all GPUs", |view| view.gpus.iter().filter(|gpu| gpu.series > 0).count() == 8);
    let pci: Vec<&str> = view.gpus.iter().map(|gpu| &gpu.identity.pci_bus_id[9..11]).collect();
    assert_eq!(pci, ["18", "19", "1A", "1B", "1C", "1D", "1E", "1F"]);
    let all: Vec<String> = (0..8).map(|index| index.to_string()).collect();
    bench.wait("all eight are up", |message| match message {
        Message::Sample(sample) if sample.source == "gpu" => {
            let points = sample.points.as_ref().unwrap().iter();
            let up = points.filter(|point| point.series.name == "plumbline_gpu_up" && point.number() == Some(1.0));
            (up.map(|point| point.labels[1].clone()).collect::<Vec<_>>() == all).then_some(())
        }
        _ => None,
    });
}

#[test]
fn a_link_that_is_down_is_zero_and_links_end_where_the_gpu_says_so() {
    let scenario = THROTTLED.replace("nvlinks_up: []", "nvlinks_up: [true, false, true]");
    let links = by_label(&Bench::new(&scenario).points(OF_THROTTLED), "nvlink_up");
    assert_eq!(links.into_iter().collect::<Vec<_>>(), [("0".into(), 1.0), ("1".into(), 0.0), ("2".into(), 1.0)]);
}

#[test]
fn the_traffic_of_all_nvlinks_is_not_that_of_the_first() {
    let scenario = THROTTLED
        .replace("nvlinks_up: []", "nvlinks_up: [true, true]\n        link_fields: { 138: [7, 5], 139: [1, 2] }");
    let points = Bench::new(&scenario).points(OF_THROTTLED);
    let traffic: Vec<(String, f64)> = by_label(&points, "nvlink_bytes_total").into_iter().collect();
    assert_eq!(traffic, [("receive".to_owned(), 3.0 * 1024.0), ("transmit".to_owned(), 12.0 * 1024.0)]);
}

#[test]
fn throttle_time_means_the_same_under_every_drivers_numbering() {
    let shares = "{ 74: 0.125, 251: 0.25, 252: 0.5, 253: 1 }";
    let scenario = THROTTLED
        .replace("{ 74: 0.4, 75: 0, 76: 0, 77: 0, 78: 0, 79: 0, 80: 0, 81: 0, 251: 0, 252: 0, 253: 0 }", shares);
    for driver in ["550.54.15", "580.65.06", "580.82.07", "580.126.09", "610.1"] {
        let mut bench = Bench::new(&scenario.replace("570.133.20", driver));
        let (first, second) = (bench.numbers(OF_THROTTLED), bench.numbers(OF_THROTTLED));
        let elapsed_s = (second.0 - first.0) as f64 / 1e9;
        let [first, second] = [first, second].map(|(_, points)| by_label(&points, "throttle_seconds_total"));
        let share = |reason: &str| (second[reason] - first[reason]) / elapsed_s;
        let measured = ["sw_power_cap", "sw_thermal", "hw_thermal", "hw_power_brake"].map(share);
        for (measured, said) in measured.into_iter().zip([0.125, 0.25, 0.5, 1.0]) {
            assert!((measured - said).abs() < 0.2 * said, "driver {driver}: {measured} instead of {said}");
        }
        assert_eq!(second.len(), 4, "driver {driver} has no other field: {second:?}");
    }
}

#[test]
fn heat_of_20_milliseconds_between_two_readings_is_in_the_counter_of_nanoseconds() {
    let mut bench = Bench::new(BURST);
    let mut last = 0.0;
    for _ in 0..5 {
        let points = bench.points(FIRST);
        let bits = by_label(&points, "throttle_active");
        assert!([bits["hw_thermal"], bits["sw_thermal"]] == [0.0, 0.0], "no bit shows it");
        last = by_label(&points, "throttle_seconds_total")["hw_thermal"];
    }
    assert!((last - 0.02).abs() < 1e-6, "{last} s instead of 0.02");
}

#[test]
fn energy_is_what_the_power_adds_up_to() {
    let mut bench = Bench::new(THROTTLED);
    let (first, second) = (bench.numbers(OF_THROTTLED), bench.numbers(OF_THROTTLED));
    let elapsed_s = (second.0 - first.0) as f64 / 1e9;
    let [first, second] = [first, second].map(|(_, points)| by_label(&points, "energy_joules_total")[""]);
    let watts = (second - first) / elapsed_s;
    assert!((watts - 699.0).abs() < 70.0, "{watts} W instead of 699");
}

#[test]
fn a_question_that_a_gpu_does_not_answer_has_no_series_and_costs_no_other() {
    let all = render(&without_dcgm(Bench::new(THROTTLED).points(OF_THROTTLED)));
    let scenario = THROTTLED.replace(
        "    steps:",
        "    unsupported: [nvmlDeviceGetPowerUsage, nvmlDeviceGetUtilizationRates, nvmlDeviceGetFieldValues]\n    steps:",
    );
    let fewer = render(&without_dcgm(Bench::new(&scenario).points(OF_THROTTLED)));
    let missing: Vec<&str> =
        all.lines().filter(|line| !fewer.contains(line)).filter_map(|line| line.split('{').next()).collect();
    assert!(fewer.lines().all(|line| all.contains(line)), "{fewer}");
    let expected = ["memory_utilization_ratio", "power_watts", "temperature_celsius"]
        .into_iter()
        .chain(["throttle_seconds_total"; 11])
        .chain(["utilization_ratio"]);
    assert_eq!(missing, expected.collect::<Vec<_>>());
}

#[test]
fn dashboards_of_dcgm_exporter_find_their_names_units_and_labels() {
    let mut bench = Bench::new(&H100X8.replace("at_s: 5", "at_s: 0"));
    bench.points(FIRST);
    let points = bench.points(FIRST);
    let of_dcgm: Vec<&Point> = points.iter().filter(|point| point.series.name.starts_with("DCGM_FI_")).collect();
    let labels =
        of_dcgm[0].series.labels.iter().zip(&*of_dcgm[0].labels).map(|(name, value)| format!("{name}={value}\n"));
    check(
        &labels.collect::<String>(),
        &expect![[r#"
            gpu=0
            UUID=GPU-5eed0000-0000-4000-8000-000000000000
            pci_bus_id=00000000:18:00.0
            device=nvidia0
            GPU_I_ID=
            GPU_I_PROFILE=
            Hostname=node-7
            hostname=node-7
            DCGM_FI_DRIVER_VERSION=550.54.15
            pod=
            namespace=
            container=
            simulated=true
        "#]],
    );
    let mut lines: Vec<String> = of_dcgm
        .iter()
        .filter(|point| !point.series.name.contains("ENERGY"))
        .map(|point| format!("{} {}\n", point.series.name, point.number().unwrap()))
        .collect();
    lines.sort();
    check(
        &lines.concat(),
        &expect![[r#"
            DCGM_FI_DEV_CORRECTABLE_REMAPPED_ROWS 0
            DCGM_FI_DEV_DEC_UTIL 0
            DCGM_FI_DEV_ECC_DBE_VOL_TOTAL 0
            DCGM_FI_DEV_ECC_SBE_VOL_TOTAL 0
            DCGM_FI_DEV_ENC_UTIL 0
            DCGM_FI_DEV_FB_FREE 11301
            DCGM_FI_DEV_FB_RESERVED 626
            DCGM_FI_DEV_FB_TOTAL 81559
            DCGM_FI_DEV_FB_USED 69632
            DCGM_FI_DEV_GPU_TEMP 61
            DCGM_FI_DEV_GPU_UTIL 100
            DCGM_FI_DEV_MEMORY_TEMP 63
            DCGM_FI_DEV_MEM_CLOCK 2619
            DCGM_FI_DEV_MEM_COPY_UTIL 62
            DCGM_FI_DEV_POWER_USAGE 655
            DCGM_FI_DEV_ROW_REMAP_FAILURE 0
            DCGM_FI_DEV_SM_CLOCK 1755
            DCGM_FI_DEV_UNCORRECTABLE_REMAPPED_ROWS 0
            DCGM_FI_PROF_DRAM_ACTIVE 0.62
            DCGM_FI_PROF_GR_ENGINE_ACTIVE 0.99
            DCGM_FI_PROF_NVLINK_RX_BYTES 95420416000
            DCGM_FI_PROF_NVLINK_TX_BYTES 95420416000
            DCGM_FI_PROF_PCIE_RX_BYTES 1268776960
            DCGM_FI_PROF_PCIE_TX_BYTES 870318080
            DCGM_FI_PROF_PIPE_FP16_ACTIVE 0.02
            DCGM_FI_PROF_PIPE_FP32_ACTIVE 0.03
            DCGM_FI_PROF_PIPE_FP64_ACTIVE 0
            DCGM_FI_PROF_PIPE_TENSOR_ACTIVE 0.71
            DCGM_FI_PROF_SM_ACTIVE 0.96
            DCGM_FI_PROF_SM_OCCUPANCY 0.31
        "#]],
    );
}
