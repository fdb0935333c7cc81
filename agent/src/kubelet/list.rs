//! The kubelet's list of pods (`v1.PodList`) → what we keep of each: names, labels, and which container has which name.
//!
//! A field that is not as Kubernetes writes it is left out; a pod without uid, namespace and name is none.

use serde::Deserialize;
use serde_json::{Map, Value};

use crate::identity::pod::{Labels, Told, is_label, is_name};

/// Labels of one pod that are kept, the first by name.
const MAX_LABELS: usize = 32;

#[derive(Deserialize)]
struct PodList {
    /// `null` where the node has no pod.
    items: Option<Vec<Pod>>,
}

#[derive(Deserialize)]
struct Pod {
    metadata: Metadata,
    #[serde(default)]
    status: Status,
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
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Status {
    init_container_statuses: Option<Vec<Container>>,
    container_statuses: Option<Vec<Container>>,
    ephemeral_container_statuses: Option<Vec<Container>>,
}

#[derive(Deserialize)]
struct Container {
    #[serde(default)]
    name: String,
    /// `containerd://<64 hexadecimal digits>`; empty before it was started.
    #[serde(default, rename = "containerID")]
    container_id: String,
}

pub(super) fn parse(answer: &[u8]) -> Result<Vec<(String, Told)>, serde_json::Error> {
    let list: PodList = serde_json::from_slice(answer)?;
    Ok(list.items.unwrap_or_default().into_iter().filter_map(told).collect())
}

fn told(Pod { metadata, status }: Pod) -> Option<(String, Told)> {
    let Metadata { name, namespace, uid, labels } = metadata;
    if uid.is_empty() || !is_label(&namespace) || !is_name(&name) {
        return None;
    }
    let all = [status.init_container_statuses, status.container_statuses, status.ephemeral_container_statuses];
    let containers = all.into_iter().flatten().flatten().filter_map(|container| {
        let (_, id) = container.container_id.split_once("://")?;
        is_label(&container.name).then(|| (id.to_owned(), container.name))
    });
    Some((uid, Told { namespace, name, labels: kept(labels.unwrap_or_default()), containers: containers.collect() }))
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
            Ok(pods) => pods.iter().map(|(uid, told)| format!("{uid}: {told:?}\n")).collect(),
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
                    "containerStatuses": [{"name": "engine", "containerID": "cri-o://bb"}, {"name": "waits"}]}}]}"#,
            expect![[r#"
                3c1f: Told { namespace: "serving", name: "vllm-0", labels: [("app", "llm"), ("app.kubernetes.io/name", "vllm"), ("empty", "")], containers: [("aa", "fetch"), ("bb", "engine")] }
            "#]],
        );
        check(r#"{"items": null}"#, expect![""]);
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
            "#]],
        );
    }

    #[test]
    fn another_answer_is_an_error() {
        check("Unauthorized", expect!["expected value at line 1 column 1"]);
        check(r#"{"items": 1}"#, expect!["invalid type: integer `1`, expected a sequence at line 1 column 11"]);
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes: Vec<u8>) {
            let _ = parse(&bytes);
        }
    }
}
