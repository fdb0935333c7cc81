//! What the kubelet and the GPUs say → who has what.

use expect_test::{Expect, expect};
use tokio::sync::watch;

use super::*;
use crate::series::{
    cuda::{CALLS_TOTAL, DEVICE_INFO},
    gpu::identity::ROUND_SECONDS,
};

const FIRST: &str = "GPU-00";
const SECOND: &str = "GPU-01";

const SECOND_NS: u64 = 1_000_000_000;

/// Two GPUs, of which the second is divided into instances 1 and 2.
struct Node {
    holders: Holders,
    held: watch::Receiver<Arc<Held>>,
    news: BTreeMap<&'static str, Vec<Point>>,
}

impl Node {
    fn new() -> Self {
        let (held, seen) = watch::channel(Arc::default());
        let mut node = Self { holders: Holders::new(held), held: seen, news: BTreeMap::new() };
        let info =
            |uuid, gpu, device| Point::new(&INFO, &[uuid, gpu, "true", "H100", "0", device, "", "", "", "550"], 1.0);
        // Minor numbers need not follow NVML's count.
        node.says(SOURCE, vec![info(FIRST, "0", "nvidia3"), info(SECOND, "1", "nvidia4")]);
        let mig = |id, uuid| Point::new(&MIG_INFO, &[SECOND, "1", "true", id, "3g.40gb", "0", uuid], 1.0);
        node.says("gpu:GPU-01:full", vec![mig("1", "MIG-a"), mig("2", "MIG-b")]);
        node.says("gpu:GPU-00:full", vec![round(FIRST)]);
        node
    }

    fn says(&mut self, source: &str, points: Vec<Point>) -> Sample {
        self.says_at(source, 0, points)
    }

    fn says_at(&mut self, source: &str, second: u64, points: Vec<Point>) -> Sample {
        let mut sample = Sample { source: source.to_owned(), taken_boot_ns: second * SECOND_NS, points: Ok(points) };
        let news = self.holders.observe(&mut sample, named);
        self.hear(news);
        sample
    }

    fn hear(&mut self, news: Option<News>) -> bool {
        let is_news = news.is_some();
        self.news.extend(news.into_iter().flatten().map(|(series, points)| (series.name, points)));
        is_news
    }

    fn gives(&mut self, given: &[(&str, &str)]) -> bool {
        let allocation = |&(pod, device): &(&str, &str)| Allocation { holder: holder(pod), device: device.to_owned() };
        let news = self.holders.allocated(given.iter().map(allocation).collect());
        self.hear(news)
    }

    fn check(&self, expect: &Expect) {
        let line = |point: &Point| {
            let labels: Vec<&str> = ["UUID", "gpu", "GPU_I_ID", "pod", "source"].map(|name| label(point, name)).into();
            let name = point.series.name.trim_start_matches("plumbline_gpu_");
            match labels.iter().all(|label| label.is_empty()) {
                true => format!("{name} {}\n", point.number().unwrap()),
                false => format!("{name} {}\n", labels.join(" ")),
            }
        };
        expect.assert_eq(&self.news.values().flatten().map(line).collect::<String>());
    }

    fn sole(&self, uuid: &str, instance: Option<u32>) -> Option<String> {
        self.held.borrow().sole(&(uuid.to_owned(), instance)).map(|holder| holder.pod.clone())
    }
}

fn round(uuid: &str) -> Point {
    Point::new(&ROUND_SECONDS, &[uuid, "0", "true", "full"], 0.01)
}

fn holder(pod: &str) -> Holder {
    Holder { namespace: "serving".to_owned(), pod: pod.to_owned(), container: "engine".to_owned() }
}

/// Processes 7 and 8 are of the pod `seven` and `eight`, 9 of none; 10 has gone.
fn named(pid: u32) -> Option<Named> {
    let pod = |name: &str| Pod {
        namespace: "serving".to_owned(),
        name: name.to_owned(),
        container: Some("engine".to_owned()),
        image: None,
        labels: Arc::default(),
    };
    match pid {
        7 => Some((b"vllm".to_vec(), Some(pod("seven")))),
        8 => Some((b"tgi\xff".to_vec(), Some(pod("eight")))),
        9 => Some((b"nvidia-smi".to_vec(), None)),
        _ => None,
    }
}

fn process(uuid: &str, instance: &str, pid: &str) -> Point {
    Point::new(&PROCESS_MEMORY_BYTES, &[uuid, "0", "true", instance, "compute", pid, "", "", "", ""], 1.0)
}

#[test]
fn each_form_of_an_id_names_the_gpu_or_instance_that_it_is() {
    let mut node = Node::new();
    node.gives(&[
        ("uuid", "GPU-00"),
        ("replica", "GPU-00::5"),
        ("index", "0"),
        ("google", "nvidia3/vgpu1"),
        ("claim", "gpu-3"),
        ("mig", "MIG-b"),
        ("google-mig", "nvidia4/gi2"),
        ("old-mig", "MIG-GPU-01/2/0"),
    ]);
    node.check(&expect![[r#"
        pod_info GPU-00 0  claim kubelet
        pod_info GPU-00 0  google kubelet
        pod_info GPU-00 0  index kubelet
        pod_info GPU-00 0  replica kubelet
        pod_info GPU-00 0  uuid kubelet
        pod_info GPU-01 1 2 google-mig kubelet
        pod_info GPU-01 1 2 mig kubelet
        pod_info GPU-01 1 2 old-mig kubelet
        unknown_allocations 0
    "#]]);
}

#[test]
fn what_is_no_gpu_of_this_node_is_counted_and_given_to_nobody() {
    let mut node = Node::new();
    node.gives(&[
        ("other-node", "GPU-77"),
        ("gone-instance", "nvidia4/gi9"),
        ("no-minor", "nvidia0"),
        ("no-index", "2"),
        ("placed", "gpu-4-mig-1g10gb-19-0"),
        ("garbage", "\u{202e}';--"),
        ("right", "GPU-00"),
    ]);
    node.check(&expect![[r#"
        pod_info GPU-00 0  right kubelet
        unknown_allocations 6
    "#]]);
}

#[test]
fn whose_processes_run_there_is_told_beside_what_the_kubelet_gave() {
    let mut node = Node::new();
    node.gives(&[("seven", "GPU-00")]);
    let points =
        vec![process(FIRST, "", "7"), process(FIRST, "", "8"), process(FIRST, "", "9"), process(FIRST, "", "10")];
    let sample = node.says("gpu:GPU-00:full", points);
    node.check(&expect![[r#"
        pod_info GPU-00 0  seven kubelet
        pod_info GPU-00 0  eight processes
        pod_info GPU-00 0  seven processes
        unknown_allocations 0
    "#]]);
    let named: Vec<String> = sample.points.unwrap().iter().map(|point| point.labels[5..].join(" ")).collect();
    assert_eq!(
        named,
        ["7 vllm seven serving engine", "8 tgi\u{fffd} eight serving engine", "9 nvidia-smi   ", "10    "]
    );
}

#[test]
fn a_gpu_has_a_sole_holder_when_the_kubelet_says_so_or_else_its_processes_do() {
    let mut node = Node::new();
    node.says("gpu:GPU-00:full", vec![process(FIRST, "", "7")]);
    assert_eq!(node.sole(FIRST, None).as_deref(), Some("seven"));
    node.says("gpu:GPU-00:full", vec![process(FIRST, "", "7"), process(FIRST, "", "8")]);
    assert_eq!(node.sole(FIRST, None), None, "two share it, as far as their processes say");
    node.gives(&[("seven", "GPU-00"), ("a", "MIG-a"), ("b", "MIG-b::0"), ("c", "MIG-b::1")]);
    assert_eq!(node.sole(FIRST, None).as_deref(), Some("seven"), "the kubelet's word");
    assert_eq!(node.sole(SECOND, Some(1)).as_deref(), Some("a"));
    assert_eq!((node.sole(SECOND, Some(2)), node.sole(SECOND, None)), (None, None));
    let found = node.holders.of(SECOND, 0);
    let found: Vec<_> = found.iter().map(|found| (found.instance, &*found.pod, found.told_by)).collect();
    assert_eq!(found, [(Some(1), "a", "kubelet"), (Some(2), "b", "kubelet"), (Some(2), "c", "kubelet")]);
    assert_eq!(node.holders.of("GPU-77", 0), []);
}

#[test]
fn what_nobody_says_any_more_is_gone() {
    let mut node = Node::new();
    node.gives(&[("seven", "MIG-a")]);
    assert!(!node.gives(&[("seven", "MIG-a")]), "the same again is no news");
    node.says("gpu:GPU-00:full", vec![process(FIRST, "", "8")]);
    let mut silent =
        Sample { source: "gpu:GPU-00:full".to_owned(), taken_boot_ns: 0, points: Err("absent".to_owned()) };
    let news = node.holders.observe(&mut silent, named);
    assert!(node.hear(news));
    node.check(&expect![[r#"
        pod_info GPU-01 1 1 seven kubelet
        unknown_allocations 0
    "#]]);
    // Silence takes nothing from the kubelet's word; another MIG configuration does.
    node.says("gpu:GPU-01:full", vec![process(SECOND, "", "9")]);
    node.check(&expect![[r#"
        unknown_allocations 1
    "#]]);
    node.gives(&[]);
    node.check(&expect![""]);
}

#[test]
fn a_finding_about_a_gpu_that_fell_silent_still_names_who_had_it() {
    let mut node = Node::new();
    node.says("gpu:GPU-00:full", vec![process(FIRST, "", "7")]);
    let points = Err("absent (lost)".to_owned());
    let mut lost = Sample { source: "gpu:GPU-00:full".to_owned(), taken_boot_ns: 5_000_000_000, points };
    let news = node.holders.observe(&mut lost, named);
    assert!(node.hear(news));
    let had = |now_boot_ns| node.holders.of(FIRST, now_boot_ns).iter().map(|had| had.pod.clone()).collect::<Vec<_>>();
    assert_eq!((had(6_000_000_000), had(70_000_000_000)), (vec!["seven".to_owned()], Vec::new()));
}

#[test]
fn a_number_that_two_gpus_had_is_that_of_the_one_that_answers() {
    let info = |uuid| Point::new(&INFO, &[uuid, "0", "true", "H100", "0", "nvidia0", "", "", "", "550"], 1.0);
    let up = |uuid, up| Point::new(&UP, &[uuid, "0", "true"], up);
    let mut node = Node::new();
    node.says(SOURCE, vec![info("GPU-02"), info("GPU-03"), up("GPU-02", 0.0), up("GPU-03", 1.0)]);
    node.says("gpu:GPU-02:full", vec![round("GPU-02")]);
    node.says("gpu:GPU-03:full", vec![round("GPU-03")]);
    node.gives(&[("minor", "nvidia0")]);
    node.check(&expect![[r#"
        pod_info GPU-03 0  minor kubelet
        unknown_allocations 0
    "#]]);
    node.says(SOURCE, vec![up("GPU-02", 1.0), up("GPU-03", 1.0)]);
    node.check(&expect![[r#"
        unknown_allocations 1
    "#]]);
}

#[test]
fn what_is_no_gpu_of_this_node_is_not_said_before_all_have_told_what_they_are() {
    let (held, _seen) = watch::channel(Arc::default());
    let mut holders = Holders::new(held);
    let news = holders.allocated(vec![Allocation { holder: holder("early"), device: "MIG-a".to_owned() }]).unwrap();
    assert!(news.iter().all(|(_, points)| points.is_empty()), "{news:?}");
}

#[track_caller]
fn check_devices(node: &mut Node, second: u64, points: Vec<Point>, expect: &[&str]) {
    let told = node.says_at(cuda::SOURCE, second, points).points.unwrap();
    let infos = told.iter().filter(|point| *point.series == DEVICE_INFO);
    let words = infos.map(|point| {
        let labels = ["pid", "process", "pod", "device", "UUID", "GPU_I_ID", "source"].map(|name| label(point, name));
        labels.join(" ")
    });
    assert_eq!(words.collect::<Vec<_>>(), expect);
}

/// A process that has called something on its device.
fn uses(pid: &str, device: &str) -> Point {
    Point::new(&CALLS_TOTAL, &[pid, "", "", "", "", device, "graph_launch"], 5.0)
}

/// A GPU lists so many processes, and tells of these.
fn lists(uuid: &str, count: f64, processes: &[(&str, &str)]) -> Vec<Point> {
    let mig = |id, uuid| Point::new(&MIG_INFO, &[SECOND, "1", "true", id, "3g.40gb", "0", uuid], 1.0);
    let instances = if uuid == SECOND { vec![mig("1", "MIG-a"), mig("2", "MIG-b")] } else { vec![round(uuid)] };
    let count = Point::new(&PROCESSES, &[uuid, "0", "true", "compute"], count);
    let processes = processes.iter().map(|(instance, pid)| process(uuid, instance, pid));
    instances.into_iter().chain([count]).chain(processes).collect()
}

#[test]
fn a_device_in_use_is_the_gpu_or_instance_that_the_driver_told_the_process_of() {
    let told = |device, uuid| Point::new(&DEVICE_INFO, &["7", "", "", "", "", device, uuid, "", "driver"], 1.0);
    let asked = || vec![told("0", "00"), told("1", "a"), told("2", "77"), told("3", "b")];
    let used = |devices: &[&str]| asked().into_iter().chain(devices.iter().map(|device| uses("7", device))).collect();
    let mut node = Node::new();
    let all = ["7 vllm seven 0 GPU-00  driver", "7 vllm seven 1 GPU-01 1 driver", "7 vllm seven 2 77  driver"];
    check_devices(&mut node, 5, used(&["0", "1", "2"]), &all);
    assert_eq!(node.holders.gpus_of(7, 0), ["77", "GPU-00", "GPU-01"]);
    // What NVML says is where it is.
    node.says("gpu:GPU-01:full", lists(SECOND, 1.0, &[("2", "7")]));
    assert_eq!((node.holders.gpus_of(7, 0), node.holders.gpus_of(8, 0)), (vec![SECOND.to_owned()], Vec::new()));
    check_devices(&mut node, 10, used(&[]), &[]);

    // An older form of the question names the GPU also where the device is an instance of it.
    let older = || vec![told("0", "01"), uses("7", "0")];
    check_devices(&mut node, 15, older(), &["7 vllm seven 0 GPU-01 2 driver"]);
    node.says("gpu:GPU-01:full", lists(SECOND, 2.0, &[("2", "7"), ("1", "7")]));
    check_devices(&mut node, 20, older(), &[]);
}

#[test]
fn who_asked_nobody_has_the_gpu_on_which_nvml_has_it_alone() {
    let calls =
        || [("7", "unknown"), ("7", "0"), ("8", "3"), ("9", "0"), ("10", "0")].map(|(pid, at)| uses(pid, at)).into();
    let first = || lists(FIRST, 2.0, &[("", "7"), ("", "9")]);
    let second = || lists(SECOND, 2.0, &[("2", "8"), ("1", "9")]);
    // 9 is on two, 10 on none.
    let seven = ["7 vllm seven 0 GPU-00  processes", "7 vllm seven unknown GPU-00  processes"];
    let all = [seven[0], seven[1], "8 tgi\u{fffd} eight 3 GPU-01 2 processes"];

    let mut node = Node::new();
    let unnamed = |node: &mut Node, count| drop(node.says(WORKER_SOURCE, vec![Point::new(&UNNAMED, &[], count)]));
    let list = |node: &mut Node, second_of_time, points: [Vec<Point>; 2]| {
        let [first, second] = points;
        node.says_at("gpu:GPU-00:full", second_of_time, first);
        node.says_at("gpu:GPU-01:full", second_of_time, second);
    };
    unnamed(&mut node, 0.0);
    list(&mut node, 1, [first(), second()]);
    // Where they were before they used these devices says nothing of these.
    check_devices(&mut node, 5, calls(), &[]);
    list(&mut node, 6, [first(), second()]);
    check_devices(&mut node, 10, calls(), &all);
    // There may be another GPU, of which nobody knows yet.
    unnamed(&mut node, 1.0);
    check_devices(&mut node, 15, calls(), &[]);
    unnamed(&mut node, 0.0);
    check_devices(&mut node, 20, calls(), &all);

    // Two devices are not one GPU.
    check_devices(&mut node, 25, vec![uses("7", "0"), uses("7", "1")], &[]);
    list(&mut node, 26, [first(), second()]);
    check_devices(&mut node, 30, vec![uses("7", "0"), uses("7", "1")], &[]);

    // Who is not all listed may be among those that are not, and so may be who is not listed where the list was refused.
    check_devices(&mut node, 35, calls(), &[]);
    for second in [lists(SECOND, 3.0, &[("2", "8"), ("1", "9")]), vec![round(SECOND)]] {
        list(&mut node, 36, [first(), second]);
        check_devices(&mut node, 40, calls(), &[]);
    }
    list(&mut node, 41, [first(), second()]);
    check_devices(&mut node, 45, calls(), &all);

    // Who was on a GPU when it fell silent may be there still, and may have ended: neither makes another the only one.
    let silent = Err("absent".to_owned());
    let mut silent = Sample { source: "gpu:GPU-01:full".into(), taken_boot_ns: 50 * SECOND_NS, points: silent };
    let _ = node.holders.observe(&mut silent, named);
    check_devices(&mut node, 50, calls(), &seven);
    let of_eight = |second| node.holders.gpus_of(8, second * SECOND_NS);
    assert_eq!((of_eight(110), of_eight(111).len()), (vec![SECOND.to_owned()], 0));
}
