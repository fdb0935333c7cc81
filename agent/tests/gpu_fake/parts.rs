//! GPUs that are divided by MIG, and who has which part.

use std::{collections::BTreeMap, sync::Arc};

use expect_test::expect;
use plumbline::{
    gpu::{Held, Holder, Source, View},
    series::Point,
};

use crate::bench::*;

const DIVIDED: &str = "GPU-5eed0000-0000-4000-8000-0000000000a0";
const WHOLE: &str = "GPU-5eed0000-0000-4000-8000-0000000000b0";
const HALVES: &str = "GPU-5eed0000-0000-4000-8000-0000000000c0";

fn of_parts(points: Vec<Point>) -> Vec<Point> {
    let is_wanted = |point: &Point| point.series.name.contains("_mig_") || point.series.name.contains("_process_");
    without_dcgm(points).into_iter().filter(is_wanted).collect()
}

#[test]
fn each_instance_of_a_divided_gpu_has_its_memory_devices_and_processes() {
    let mut bench = Bench::new(A100_MIG);
    check(
        &render(&of_parts(bench.points(DIVIDED))),
        &expect![[r#"
            mig_info{GPU_I_ID=1,GPU_I_PROFILE=3g.40gb,compute_instance=0,mig=MIG-5eed0000-0000-4000-8000-0000000000a1} 1
            mig_info{GPU_I_ID=1,GPU_I_PROFILE=3g.40gb,compute_instance=1,mig=MIG-5eed0000-0000-4000-8000-0000000000a2} 1
            mig_info{GPU_I_ID=11,GPU_I_PROFILE=1g.10gb,compute_instance=0,mig=MIG-5eed0000-0000-4000-8000-0000000000a3} 1
            mig_info{GPU_I_ID=12,GPU_I_PROFILE=1g.10gb,compute_instance=0,mig=MIG-5eed0000-0000-4000-8000-0000000000a4} 1
            mig_memory_free_bytes{GPU_I_ID=1,GPU_I_PROFILE=3g.40gb} 12079595520
            mig_memory_free_bytes{GPU_I_ID=11,GPU_I_PROFILE=1g.10gb} 1879048192
            mig_memory_free_bytes{GPU_I_ID=12,GPU_I_PROFILE=1g.10gb} 10455875584
            mig_memory_total_bytes{GPU_I_ID=1,GPU_I_PROFILE=3g.40gb} 42144366592
            mig_memory_total_bytes{GPU_I_ID=11,GPU_I_PROFILE=1g.10gb} 10468982784
            mig_memory_total_bytes{GPU_I_ID=12,GPU_I_PROFILE=1g.10gb} 10468982784
            mig_memory_used_bytes{GPU_I_ID=1,GPU_I_PROFILE=3g.40gb} 30064771072
            mig_memory_used_bytes{GPU_I_ID=11,GPU_I_PROFILE=1g.10gb} 8589934592
            mig_memory_used_bytes{GPU_I_ID=12,GPU_I_PROFILE=1g.10gb} 13107200
            mig_mode{when=now} 1
            mig_mode{when=pending} 1
            process_memory_bytes{GPU_I_ID=1,type=compute,pid=4242,process=,pod=,namespace=,container=} 17179869184
            process_memory_bytes{GPU_I_ID=11,type=compute,pid=4343,process=,pod=,namespace=,container=} 8556380160
        "#]],
    );
    let mut bench = Bench::new(A100_MIG);
    check(
        &render(&of_parts(bench.points(WHOLE))),
        &expect![[r#"
            mig_mode{when=now} 0
            mig_mode{when=pending} 0
            process_memory_bytes{GPU_I_ID=,type=compute,pid=4444,process=,pod=,namespace=,container=} 63887638528
            process_utilization_ratio{unit=decoder,pid=4444,process=,pod=,namespace=,container=} 0
            process_utilization_ratio{unit=encoder,pid=4444,process=,pod=,namespace=,container=} 0
            process_utilization_ratio{unit=memory,pid=4444,process=,pod=,namespace=,container=} 0
            process_utilization_ratio{unit=sm,pid=4444,process=,pod=,namespace=,container=} 0.87
        "#]],
    );
}

#[test]
fn what_is_not_told_of_a_divided_gpu_is_absent_with_the_reason() {
    let mut bench = Bench::new(A100_MIG);
    let points = bench.points(DIVIDED);
    assert_eq!(by_label(&points, "utilization_ratio"), BTreeMap::new());
    let is_asked = |view: &View| view.gpus[0].refusals.iter().any(|refusal| refusal.question == "nvmlGpmMigSampleGet");
    let view = bench.view("the round in which instances are known", is_asked);
    let reasons: BTreeMap<&str, &str> =
        view.gpus[0].refusals.iter().map(|refusal| (&*refusal.question, &*refusal.reason)).collect();
    for question in ["nvmlDeviceGetUtilizationRates", "nvmlDeviceGetProcessUtilization", "nvmlGpmMigSampleGet"] {
        assert_eq!(reasons.get(question), Some(&"this GPU does not support it"), "{question}");
    }
    assert!(!reasons.contains_key("nvmlDeviceGetMigDeviceHandleByIndex"), "{reasons:?}");
}

#[test]
fn on_hopper_each_instance_has_counters_of_its_own() {
    let mut bench = Bench::new(H100_MIG);
    // Listed in the first full round, read in the round after, and again in the next.
    bench.points(HALVES);
    bench.points(HALVES);
    let activity: Vec<Point> = of_parts(bench.points(HALVES))
        .into_iter()
        .filter(|point| point.series.name.ends_with("_ratio") && point.labels.contains(&"1".to_owned()))
        .collect();
    check(
        &render(&activity),
        &expect![[r#"
            mig_dram_active_ratio{GPU_I_ID=1,GPU_I_PROFILE=3g.40gb} 0.61
            mig_graphics_active_ratio{GPU_I_ID=1,GPU_I_PROFILE=3g.40gb} 0.95
            mig_pipe_active_ratio{GPU_I_ID=1,GPU_I_PROFILE=3g.40gb,pipe=fp16} 0.01
            mig_pipe_active_ratio{GPU_I_ID=1,GPU_I_PROFILE=3g.40gb,pipe=fp32} 0.02
            mig_pipe_active_ratio{GPU_I_ID=1,GPU_I_PROFILE=3g.40gb,pipe=tensor_fp16} 0.7000000000000001
            mig_pipe_active_ratio{GPU_I_ID=1,GPU_I_PROFILE=3g.40gb,pipe=tensor} 0.7000000000000001
            mig_sm_active_ratio{GPU_I_ID=1,GPU_I_PROFILE=3g.40gb} 0.9
            mig_sm_occupancy_ratio{GPU_I_ID=1,GPU_I_PROFILE=3g.40gb} 0.4
        "#]],
    );
}

#[test]
fn dashboards_of_dcgm_exporter_find_instances_and_the_pods_that_alone_have_them() {
    let mut bench = Bench::new(H100_MIG);
    let holder =
        |pod: &str| Holder { namespace: "serving".to_owned(), pod: pod.to_owned(), container: "engine".to_owned() };
    let held = [
        (Some(1), Source::Kubelet, "first"),
        (Some(2), Source::Kubelet, "second"),
        (Some(2), Source::Kubelet, "third"),
    ];
    let mut all: BTreeMap<_, std::collections::BTreeSet<_>> = BTreeMap::new();
    for (instance, source, pod) in held {
        all.entry((HALVES.to_owned(), instance)).or_default().insert((source, holder(pod)));
    }
    bench.points(HALVES);
    bench.held.send_replace(Arc::new(Held::new(all)));
    bench.points(HALVES);
    let points = bench.points(HALVES);
    let mut lines: Vec<String> = points
        .iter()
        .filter(|point| ["DCGM_FI_DEV_FB_USED", "DCGM_FI_PROF_SM_ACTIVE"].contains(&point.series.name))
        .map(|point| {
            let wanted = ["GPU_I_ID", "GPU_I_PROFILE", "pod", "namespace", "container"];
            let labels = point.series.labels.iter().zip(&*point.labels).filter(|(name, _)| wanted.contains(name));
            let labels: Vec<String> = labels.map(|(name, value)| format!("{name}={value}")).collect();
            format!("{}{{{}}} {}\n", point.series.name, labels.join(","), point.number().unwrap())
        })
        .collect();
    lines.sort();
    check(
        &lines.concat(),
        &expect![[r#"
            DCGM_FI_DEV_FB_USED{GPU_I_ID=1,GPU_I_PROFILE=3g.40gb,pod=first,namespace=serving,container=engine} 34816
            DCGM_FI_DEV_FB_USED{GPU_I_ID=2,GPU_I_PROFILE=3g.40gb,pod=,namespace=,container=} 17.875
            DCGM_FI_PROF_SM_ACTIVE{GPU_I_ID=1,GPU_I_PROFILE=3g.40gb,pod=first,namespace=serving,container=engine} 0.9
            DCGM_FI_PROF_SM_ACTIVE{GPU_I_ID=2,GPU_I_PROFILE=3g.40gb,pod=,namespace=,container=} 0
        "#]],
    );
    let view = bench.view("who has it", |view| !view.gpus[0].holders.is_empty());
    assert_eq!(
        view.gpus[0].holders,
        [
            "serving/first/engine (kubelet, instance 1)",
            "serving/second/engine (kubelet, instance 2)",
            "serving/third/engine (kubelet, instance 2)",
        ]
    );
}
