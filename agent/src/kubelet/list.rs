//! The kubelet's list of pods (`v1.PodList`) → what we keep of each: names, labels, which container has which name, how each fares, and
//! where its annotations say that its metrics are.
//!
//! Labels and containers that are not as Kubernetes writes them are left out; a pod that is not is none.

use std::{fmt, marker::PhantomData};

use serde::{
    Deserialize, Deserializer,
    de::{IgnoredAny, SeqAccess, Visitor},
};
use serde_json::{Map, Value};

use super::{annotations, quantity};
use crate::{
    identity::pod::{Container, Labels, Page, Told, is_label, is_name},
    series::{Point, pod},
};

/// Labels of one pod that are kept, the first by name.
const MAX_LABELS: usize = 32;

/// Pods of one node, and containers of one pod, that are kept; a kubelet runs some hundreds at most.
const MAX_PODS: usize = 2048;
const MAX_CONTAINERS: usize = 256;

/// The first `MAX` elements of a list that are what they should be; `null` is an empty one.
struct UpTo<T, const MAX: usize>(Vec<T>);

impl<T, const MAX: usize> Default for UpTo<T, MAX> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

/// One element, or something else.
#[derive(Deserialize)]
#[serde(untagged)]
enum Perhaps<T> {
    It(T),
    Not(IgnoredAny),
}

impl<'de, T: Deserialize<'de>, const MAX: usize> Deserialize<'de> for UpTo<T, MAX> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct List<T, const MAX: usize>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>, const MAX: usize> Visitor<'de> for List<T, MAX> {
            type Value = UpTo<T, MAX>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list")
            }
            fn visit_unit<E>(self) -> Result<Self::Value, E> {
                Ok(UpTo::default())
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
                let mut kept = Vec::new();
                while kept.len() < MAX {
                    match list.next_element::<Perhaps<T>>()? {
                        Some(Perhaps::It(it)) => kept.push(it),
                        Some(Perhaps::Not(_)) => {}
                        None => return Ok(UpTo(kept)),
                    }
                }
                while list.next_element::<IgnoredAny>()?.is_some() {}
                Ok(UpTo(kept))
            }
        }
        deserializer.deserialize_any(List(PhantomData))
    }
}

#[derive(Deserialize)]
struct PodList {
    /// `null` where the node has no pod.
    items: UpTo<Pod, MAX_PODS>,
}

#[derive(Deserialize)]
struct Pod {
    metadata: Metadata,
    #[serde(default)]
    spec: Spec,
    #[serde(default)]
    status: Status,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Spec {
    containers: UpTo<SpecContainer, MAX_CONTAINERS>,
}

#[derive(Deserialize)]
struct SpecContainer {
    #[serde(default)]
    name: String,
    #[serde(default)]
    resources: Resources,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Resources {
    limits: Option<Map<String, Value>>,
}

#[derive(Deserialize)]
struct Metadata {
    #[serde(default)]
    name: String,
    #[serde(default)]
    namespace: String,
    #[serde(default)]
    uid: String,
    #[serde(default)]
    labels: Option<Map<String, Value>>,
    #[serde(default)]
    annotations: Option<Map<String, Value>>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Status {
    phase: String,
    #[serde(rename = "podIP")]
    pod_ip: String,
    init_container_statuses: UpTo<ContainerStatus, MAX_CONTAINERS>,
    container_statuses: UpTo<ContainerStatus, MAX_CONTAINERS>,
    ephemeral_container_statuses: UpTo<ContainerStatus, MAX_CONTAINERS>,
}

#[derive(Deserialize)]
struct ContainerStatus {
    #[serde(default)]
    name: String,
    /// `containerd://<64 hexadecimal digits>`; empty before it was started.
    #[serde(default, rename = "containerID")]
    container_id: String,
    #[serde(default)]
    image: String,
    #[serde(default)]
    ready: bool,
    #[serde(default, rename = "restartCount")]
    restarts: u32,
    #[serde(default, rename = "lastState")]
    last_state: Option<State>,
}

#[derive(Deserialize)]
struct State {
    #[serde(default)]
    terminated: Option<Terminated>,
}

#[derive(Deserialize)]
struct Terminated {
    #[serde(default)]
    reason: String,
    #[serde(default, rename = "exitCode")]
    exit_code: i32,
}

/// What the kubelet said of all pods.
#[derive(Debug, Default)]
pub(super) struct Said {
    /// By uid.
    pub(super) pods: Vec<(String, Told)>,
    /// How they and their containers fare.
    pub(super) points: Vec<Point>,
    pub(super) pages: Vec<Page>,
}

pub(super) fn parse(answer: &[u8]) -> Result<Said, serde_json::Error> {
    let list: PodList = serde_json::from_slice(answer)?;
    let mut said = Said::default();
    list.items.0.into_iter().for_each(|pod| said.take(pod));
    Ok(said)
}

impl Said {
    fn take(&mut self, Pod { metadata, spec, status }: Pod) {
        let Metadata { name, namespace, uid, labels, annotations } = metadata;
        if uid.is_empty() || !is_label(&namespace) || !is_name(&name) {
            return;
        }
        self.points.extend(fares(&namespace, &name, &spec, &status));
        // The address of a pod that has ended may be another's by now.
        let is_running = status.phase == "Running";
        self.pages.extend(
            annotations::page(&uid, &name, &status.pod_ip, &annotations.unwrap_or_default()).filter(|_| is_running),
        );
        self.pods.push((uid, told(namespace, name, labels, status)));
    }
}

fn fares(namespace: &str, name: &str, spec: &Spec, status: &Status) -> Vec<Point> {
    let mut points = Vec::new();
    if ["Pending", "Running", "Succeeded", "Failed", "Unknown"].contains(&&*status.phase) {
        points.push(Point::new(&pod::PHASE, &[namespace, name, &status.phase], 1.0));
    }
    for container in status.container_statuses.0.iter().filter(|container| is_label(&container.name)) {
        let labels = [namespace, name, &container.name];
        points.push(Point::new(&pod::CONTAINER_READY, &labels, f64::from(u8::from(container.ready))));
        points.push(Point::new(&pod::CONTAINER_RESTARTS_TOTAL, &labels, f64::from(container.restarts)));
        if let Some(ended) = container.last_state.as_ref().and_then(|state| state.terminated.as_ref()) {
            let is_word = !ended.reason.is_empty() && ended.reason.bytes().all(|byte| byte.is_ascii_alphanumeric());
            let reason = if is_word { &*ended.reason } else { "unknown" };
            let labels = [namespace, name, &container.name, reason, &ended.exit_code.to_string()];
            points.push(Point::new(&pod::CONTAINER_LAST_ENDED, &labels, 1.0));
        }
    }
    for container in spec.containers.0.iter().filter(|container| is_label(&container.name)) {
        let limits = container.resources.limits.iter().flatten();
        let amount = |is_it: &dyn Fn(&str) -> bool| {
            let amounts = limits
                .clone()
                .filter(|(name, _)| is_it(name))
                .filter_map(|(_, value)| quantity::parse(value.as_str()?));
            amounts.reduce(|sum, more| sum + more)
        };
        for (series, amount) in [
            (&pod::CPU_LIMIT_CORES, amount(&|name| name == "cpu")),
            (&pod::MEMORY_LIMIT_BYTES, amount(&|name| name == "memory")),
            (&pod::GPU_LIMIT, amount(&|name| name == "nvidia.com/gpu" || name.starts_with("nvidia.com/mig-"))),
        ] {
            points.extend(amount.map(|amount| Point::new(series, &[namespace, name, &container.name], amount)));
        }
    }
    points
}

fn told(namespace: String, name: String, labels: Option<Map<String, Value>>, status: Status) -> Told {
    let all = [status.init_container_statuses, status.container_statuses, status.ephemeral_container_statuses];
    let containers = all.into_iter().flat_map(|list| list.0).filter_map(|container| {
        let (_, id) = container.container_id.split_once("://")?;
        let image = Some(container.image).filter(|image| is_image(image));
        is_label(&container.name).then(|| Container { id: id.to_owned(), name: container.name, image })
    });
    Told { namespace, name, labels: kept(labels.unwrap_or_default()), containers: containers.collect() }
}

/// A reference of an image, as registries take them: no spaces, nothing that drives a terminal.
fn is_image(text: &str) -> bool {
    (1..=512).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic())
}

fn kept(labels: Map<String, Value>) -> Labels {
    let text = |(name, value): (String, Value)| match value {
        Value::String(value) if is_label_name(&name) && is_label_value(&value) => Some((name, value)),
        _ => None,
    };
    let mut labels: Vec<_> = labels.into_iter().filter_map(text).collect();
    labels.sort();
    labels.truncate(MAX_LABELS);
    labels.into()
}

/// At most 63 letters, digits, `-`, `_` and `.`; a prefix of at most 253 and a slash before it (kubernetes,
/// `apimachinery/pkg/util/validation`).
fn is_label_name(text: &str) -> bool {
    let (prefix, name) = text.rsplit_once('/').map_or((None, text), |(prefix, name)| (Some(prefix), name));
    !name.is_empty() && is_label_value(name) && prefix.is_none_or(is_name)
}

fn is_label_value(text: &str) -> bool {
    text.len() <= 63 && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'))
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};
    use proptest::prelude::*;

    use super::*;

    #[expect(clippy::needless_pass_by_value, reason = "expect! makes a value")]
    fn check(answer: &str, expect: Expect) {
        let said = match parse(answer.as_bytes()) {
            Ok(said) => {
                let pods = said.pods.iter().map(|(uid, told)| format!("{uid}: {told:?}\n"));
                let points = said.points.iter().map(|point| {
                    format!("{}{:?} {}\n", point.series.name, point.labels, point.number().unwrap_or(f64::NAN))
                });
                let pages = said.pages.iter().map(|page| format!("{page:?}\n"));
                pods.chain(points).chain(pages).collect()
            }
            Err(error) => error.to_string(),
        };
        expect.assert_eq(&said);
    }

    #[test]
    fn a_pod_is_its_names_its_labels_and_its_containers() {
        check(
            r#"{"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": [{
                "metadata": {"name": "vllm-0", "namespace": "serving", "uid": "3c1f",
                    "labels": {"app.kubernetes.io/name": "vllm", "app": "llm", "empty": ""}},
                "spec": {"containers": [{"name": "engine"}]},
                "status": {"phase": "Running",
                    "initContainerStatuses": [{"name": "fetch", "containerID": "containerd://aa"}],
                    "containerStatuses": [{"name": "engine", "containerID": "cri-o://bb", "image": "vllm/vllm-openai:v0.11.0"}, {"name": "waits"}]}}]}"#,
            expect![[r#"
                3c1f: Told { namespace: "serving", name: "vllm-0", labels: [("app", "llm"), ("app.kubernetes.io/name", "vllm"), ("empty", "")], containers: [Container { id: "aa", name: "fetch", image: None }, Container { id: "bb", name: "engine", image: Some("vllm/vllm-openai:v0.11.0") }] }
                plumbline_pod_phase["serving", "vllm-0", "Running"] 1
                plumbline_pod_container_ready["serving", "vllm-0", "engine"] 0
                plumbline_pod_container_restarts_total["serving", "vllm-0", "engine"] 0
                plumbline_pod_container_ready["serving", "vllm-0", "waits"] 0
                plumbline_pod_container_restarts_total["serving", "vllm-0", "waits"] 0
            "#]],
        );
        check(r#"{"items": null}"#, expect![""]);
    }

    #[test]
    fn a_pod_is_how_its_containers_fare_and_where_its_annotations_point() {
        check(
            r#"{"items": [{
                "metadata": {"name": "vllm-0", "namespace": "serving", "uid": "3c1f",
                    "annotations": {"prometheus.io/scrape": "true", "prometheus.io/port": "8000"}},
                "spec": {"containers": [{"name": "engine", "resources": {"limits": {"cpu": "3500m", "memory": "64Gi", "nvidia.com/gpu": "2"}}},
                    {"name": "side", "resources": {"limits": {"memory": "lots"}}}]},
                "status": {"phase": "Running", "podIP": "10.0.0.7",
                    "containerStatuses": [{"name": "engine", "ready": true, "restartCount": 3,
                        "lastState": {"terminated": {"reason": "OOMKilled", "exitCode": 137}}},
                        {"name": "side", "ready": false, "restartCount": 0, "lastState": {}}]}}]}"#,
            expect![[r#"
                3c1f: Told { namespace: "serving", name: "vllm-0", labels: [], containers: [] }
                plumbline_pod_phase["serving", "vllm-0", "Running"] 1
                plumbline_pod_container_ready["serving", "vllm-0", "engine"] 1
                plumbline_pod_container_restarts_total["serving", "vllm-0", "engine"] 3
                plumbline_pod_container_last_ended["serving", "vllm-0", "engine", "OOMKilled", "137"] 1
                plumbline_pod_container_ready["serving", "vllm-0", "side"] 0
                plumbline_pod_container_restarts_total["serving", "vllm-0", "side"] 0
                plumbline_pod_container_cpu_limit_cores["serving", "vllm-0", "engine"] 3.5
                plumbline_pod_container_memory_limit_bytes["serving", "vllm-0", "engine"] 68719476736
                plumbline_pod_container_gpu_limit["serving", "vllm-0", "engine"] 2
                Page { pod_uid: "3c1f", pod: "vllm-0", port: 8000, url: "http://10.0.0.7:8000/metrics" }
            "#]],
        );
    }

    #[test]
    fn what_no_kubelet_would_write_is_left_out() {
        check(
            r#"{"items": [
                {"metadata": {"name": "a\u001b[31m", "namespace": "b", "uid": "u"}},
                {"metadata": {"name": "a", "namespace": "B", "uid": "u"}},
                {"metadata": {"name": "a", "namespace": "b"}},
                {"metadata": {"name": "a", "namespace": "b", "uid": "u", "labels": {"x\n": "1", "n": 1, "/n": "", "v": "\u202e", "ok": "1"}},
                    "status": {"containerStatuses": [{"name": "C", "containerID": "x://1"}, {"name": "c", "containerID": "1"}]}}]}"#,
            expect![[r#"
                u: Told { namespace: "b", name: "a", labels: [("ok", "1")], containers: [] }
                plumbline_pod_container_ready["b", "a", "c"] 0
                plumbline_pod_container_restarts_total["b", "a", "c"] 0
            "#]],
        );
    }

    #[test]
    fn another_answer_is_an_error() {
        check("Unauthorized", expect!["expected value at line 1 column 1"]);
        check(r#"{"items": 1}"#, expect!["invalid type: integer `1`, expected a list at line 1 column 11"]);
    }

    #[test]
    fn one_pod_that_is_none_takes_no_other_with_it() {
        check(
            r#"{"items": [1, {}, {"metadata": {"name": null, "namespace": "b", "uid": "v"}}, {"metadata": {"name": "a", "namespace": "b", "uid": "u"}}]}"#,
            expect![[r#"
                u: Told { namespace: "b", name: "a", labels: [], containers: [] }
            "#]],
        );
    }

    #[test]
    fn more_pods_than_a_node_runs_are_not_kept() {
        let pods: Vec<String> = (0..MAX_PODS + 7)
            .map(|number| format!(r#"{{"metadata": {{"name": "a", "namespace": "b", "uid": "{number}"}}}}"#))
            .collect();
        let list = format!(r#"{{"items": [{}], "kind": "PodList"}}"#, pods.join(","));
        assert_eq!(parse(list.as_bytes()).unwrap().pods.len(), MAX_PODS);
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes: Vec<u8>) {
            let _ = parse(&bytes);
        }
    }
}
