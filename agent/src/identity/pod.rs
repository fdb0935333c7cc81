//! A pod's uid → its namespace, its name, and the names of its containers, from the directories that the kubelet makes
//! for logs: `/var/log/pods/<namespace>_<name>_<uid>/` before a pod's first container starts, and
//! `/var/log/containers/<name>_<namespace>_<container>-<container id>.log` as each starts (kubernetes,
//! `pkg/kubelet/kuberuntime/helpers.go` `BuildPodLogsDirectory` and `legacy.go` `legacyLogSymlink`).
//!
//! They are there on every node with a kubelet, whatever its runtime, need neither network nor credentials, and a workload
//! cannot write them. Labels are not in them: those come from the kubelet itself, where it may be asked (`kubelet`).

use std::{collections::HashMap, fs, path::Path, sync::Arc};

use tokio::sync::Notify;

/// What a pod is called.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pod {
    pub namespace: String,
    pub name: String,
    /// The container that the process is in, where the kubelet has told yet.
    pub container: Option<String>,
    /// The image of that container; `None` where only the directories tell.
    pub image: Option<String>,
    /// By name; empty where only the directories tell.
    pub labels: Labels,
}

pub type Labels = Arc<[(String, String)]>;

/// What the kubelet says of a pod when it is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Told {
    pub namespace: String,
    pub name: String,
    pub labels: Labels,
    pub containers: Vec<Container>,
}

/// One container of a pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Container {
    pub id: String,
    pub name: String,
    /// As the pod names it: `vllm/vllm-openai:v0.11.0`.
    pub image: Option<String>,
}

/// Where a pod says that its metrics are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    pub pod_uid: String,
    pub pod: String,
    pub port: u16,
    /// `http://` and the pod's address.
    pub url: String,
}

impl Told {
    fn pod(&self, container_id: Option<&str>) -> Pod {
        let container = self.containers.iter().find(|container| Some(&*container.id) == container_id);
        Pod {
            namespace: self.namespace.clone(),
            name: self.name.clone(),
            container: container.map(|container| container.name.clone()),
            image: container.and_then(|container| container.image.clone()),
            labels: Arc::clone(&self.labels),
        }
    }
}

/// Entries of a directory that one search looks at.
const MAX_ENTRIES: usize = 65_536;

impl Pod {
    /// Looks for the pod of this uid and the container of this id below `logs`.
    pub fn find(logs: &Path, uid: &str, container_id: Option<&str>) -> Option<Self> {
        let (namespace, name) = names(&logs.join("pods")).find_map(|entry| {
            let (namespace, name) = entry.strip_suffix(uid)?.strip_suffix('_')?.split_once('_')?;
            (is_label(namespace) && is_name(name)).then(|| (namespace.to_owned(), name.to_owned()))
        })?;
        let container = container_id.and_then(|id| container(&logs.join("containers"), &namespace, &name, id));
        Some(Self { namespace, name, container, image: None, labels: Labels::default() })
    }
}

fn container(directory: &Path, namespace: &str, pod: &str, id: &str) -> Option<String> {
    names(directory).find_map(|entry| {
        let of_pod = entry.strip_suffix(".log")?.strip_suffix(id)?.strip_suffix('-')?;
        let name = of_pod.strip_prefix(pod)?.strip_prefix('_')?.strip_prefix(namespace)?.strip_prefix('_')?;
        is_label(name).then(|| name.to_owned())
    })
}

fn names(directory: &Path) -> impl Iterator<Item = String> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten().take(MAX_ENTRIES);
    entries.filter_map(|entry| entry.file_name().into_string().ok())
}

/// RFC 1123, as Kubernetes has it: a label of namespaces and containers, …
pub fn is_label(text: &str) -> bool {
    (1..=63).contains(&text.len()) && text.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-'))
}

/// … and a subdomain of pods.
pub fn is_name(text: &str) -> bool {
    (1..=253).contains(&text.len()) && text.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.'))
}

/// Containers that are remembered; when there are more, all are asked for anew.
const MAX_REMEMBERED: usize = 4096;

/// What is not known completely is asked for again after this long.
const ASK_AGAIN_NS: u64 = 5_000_000_000;

/// The kubelet's word on a pod that its answers name no more is kept for so long, for its last events.
const KEEP_GONE_NS: u64 = 60_000_000_000;

/// What is known of the node's pods.
#[derive(Debug, Default)]
pub struct Pods {
    /// What the directories answered, by pod uid and container id, and when they were asked.
    found: HashMap<(String, Option<String>), (u64, Option<Pod>)>,
    /// What the kubelet said last, by pod uid.
    told: HashMap<String, Told>,
    /// What it said of pods that it has not named since this time.
    gone: HashMap<String, (u64, Told)>,
    /// Notified when the kubelet should be asked anew.
    wanted: Option<Arc<Notify>>,
}

impl Pods {
    /// From now on `wanted` hears of pods and containers that the kubelet has not told.
    pub fn ask_by(&mut self, wanted: Arc<Notify>) {
        self.wanted = Some(wanted);
    }

    /// Takes in the kubelet's list of all pods.
    pub fn told(&mut self, taken_boot_ns: u64, pods: Vec<(String, Told)>) {
        let before = std::mem::replace(&mut self.told, pods.into_iter().take(MAX_REMEMBERED).collect());
        self.gone.retain(|uid, (gone_boot_ns, _)| {
            *gone_boot_ns + KEEP_GONE_NS > taken_boot_ns && !self.told.contains_key(uid)
        });
        let gone = before.into_iter().filter(|(uid, _)| !self.told.contains_key(uid));
        let room = MAX_REMEMBERED.saturating_sub(self.gone.len());
        self.gone.extend(gone.take(room).map(|(uid, told)| (uid, (taken_boot_ns, told))));
    }

    /// What the pod is called. The directories are looked through at most once in [`ASK_AGAIN_NS`] for each container, and
    /// never again once they told all.
    pub fn of(
        &mut self,
        uid: &str,
        container_id: Option<&str>,
        now_boot_ns: u64,
        find: impl FnOnce() -> Option<Pod>,
    ) -> Option<Pod> {
        let told = self.told.get(uid).or_else(|| self.gone.get(uid).map(|(_, told)| told));
        let told = told.map(|told| told.pod(container_id));
        let is_complete =
            |pod: &Option<Pod>| pod.as_ref().is_some_and(|pod| container_id.is_none() || pod.container.is_some());
        if is_complete(&told) {
            return told;
        }
        // The kubelet's names and labels, and the container's name from wherever it is.
        let join = |found: Option<Pod>| match (told.clone(), found) {
            (Some(told), Some(found)) => Some(Pod { container: found.container, ..told }),
            (told, found) => told.or(found),
        };
        let key = (uid.to_owned(), container_id.map(str::to_owned));
        if let Some((asked_boot_ns, pod)) = self.found.get(&key)
            && (is_complete(pod) || now_boot_ns.saturating_sub(*asked_boot_ns) < ASK_AGAIN_NS)
        {
            return join(pod.clone());
        }
        if self.found.len() >= MAX_REMEMBERED {
            self.found.clear();
        }
        if let Some(wanted) = &self.wanted {
            wanted.notify_one();
        }
        let before = self.found.remove(&key).and_then(|(_, pod)| pod);
        // The directories of a pod that is gone are removed, and its last events come later.
        let pod = find().or(before);
        self.found.insert(key, (now_boot_ns, pod.clone()));
        join(pod)
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    const UID: &str = "3c1f2a4e-5b6c-7d8e-9f0a-1b2c3d4e5f60";
    const ID: &str = "8f3b0a52c1d94e6f7a8b9c0d1e2f3a4b5c6d7e8f90a1b2c3d4e5f60718293a4b";

    /// The kubelet's directories, with these pods and containers.
    fn logs(pods: &[&str], containers: &[&str]) -> (tempfile::TempDir, PathBuf) {
        let root = tempfile::tempdir().unwrap();
        for pod in pods {
            fs::create_dir_all(root.path().join("pods").join(pod.replace("UID", UID))).unwrap();
        }
        fs::create_dir_all(root.path().join("containers")).unwrap();
        for container in containers {
            fs::write(root.path().join("containers").join(container.replace("ID", ID)), "").unwrap();
        }
        let path = root.path().to_owned();
        (root, path)
    }

    #[track_caller]
    fn check(pods: &[&str], containers: &[&str], expect: Option<(&str, &str, Option<&str>)>) {
        let (_root, logs) = logs(pods, containers);
        let found = Pod::find(&logs, UID, Some(ID));
        let found = found.as_ref().map(|pod| (&*pod.namespace, &*pod.name, pod.container.as_deref()));
        assert_eq!(found, expect);
    }

    #[test]
    fn a_pod_is_named_by_the_directory_of_its_logs() {
        check(&["kube-system_dns-1_other", "serving_vllm-0.a_UID"], &[], Some(("serving", "vllm-0.a", None)));
    }

    #[test]
    fn a_container_is_named_by_the_link_to_its_log() {
        let links = ["vllm-0_serving_sidecar-0000.log", "vllm-0_serving_engine-ID.log"];
        check(&["serving_vllm-0_UID"], &links, Some(("serving", "vllm-0", Some("engine"))));
        // A link of another pod's name says nothing of this one.
        check(&["serving_vllm-0_UID"], &["vllm-1_serving_engine-ID.log"], Some(("serving", "vllm-0", None)));
    }

    #[test]
    fn what_no_kubelet_would_write_names_nothing() {
        check(&["serving_\u{1b}[31m_UID"], &[], None);
        check(&["_UID", "a_UID", "a_b_cUID", "A_b_UID"], &[], None);
        check(&[], &[], None);
    }

    #[test]
    fn an_answer_is_asked_for_until_it_is_complete_and_kept_when_the_pod_is_gone() {
        let mut pods = Pods::default();
        let (namespace, name) = ("a".to_owned(), "b".to_owned());
        let pod = Pod { namespace, name, container: None, image: None, labels: Labels::default() };
        let complete = Pod { container: Some("c".into()), ..pod.clone() };
        let never = || panic!("asked too early");
        assert_eq!(pods.of("u", Some("i"), 0, || None), None);
        assert_eq!(pods.of("u", Some("i"), 1, never), None);
        assert_eq!(pods.of("u", Some("i"), ASK_AGAIN_NS, || Some(pod.clone())), Some(pod.clone()));
        assert_eq!(pods.of("u", Some("i"), 2 * ASK_AGAIN_NS, || None), Some(pod));
        assert_eq!(pods.of("u", Some("i"), 3 * ASK_AGAIN_NS, || Some(complete.clone())), Some(complete.clone()));
        assert_eq!(pods.of("u", Some("i"), u64::MAX, never), Some(complete));
    }
    #[test]
    fn what_the_kubelet_says_goes_before_the_directories_and_outlives_its_pod() {
        let labels: Labels = [("app".to_owned(), "vllm".to_owned())].into();
        let image = Some("vllm/vllm-openai:v0.11.0".to_owned());
        let containers = vec![Container { id: "i".into(), name: "engine".into(), image: image.clone() }];
        let told = Told { namespace: "a".into(), name: "b".into(), labels: Arc::clone(&labels), containers };
        let pod = Pod { namespace: "a".into(), name: "b".into(), container: Some("engine".into()), image, labels };
        let mut pods = Pods::default();
        let never = || panic!("the kubelet has told");
        pods.told(0, vec![("u".into(), told)]);
        assert_eq!(pods.of("u", Some("i"), 0, never), Some(pod.clone()));
        assert_eq!(pods.of("u", None, 0, never), Some(Pod { container: None, image: None, ..pod.clone() }));
        // A container that the kubelet has not told yet.
        let found = Pod { container: Some("other".into()), image: None, labels: Labels::default(), ..pod.clone() };
        assert_eq!(
            pods.of("u", Some("j"), 0, || Some(found.clone())),
            Some(Pod { labels: Arc::clone(&pod.labels), ..found })
        );
        assert_eq!(pods.of("u", Some("k"), 0, || None), Some(Pod { container: None, image: None, ..pod.clone() }));
        // However late the answer comes that does not name it.
        let late_ns = 100 * KEEP_GONE_NS;
        pods.told(late_ns, vec![]);
        pods.told(late_ns + KEEP_GONE_NS - 1, vec![]);
        assert_eq!(pods.of("u", Some("i"), late_ns + KEEP_GONE_NS, never), Some(pod));
        pods.told(late_ns + KEEP_GONE_NS, vec![]);
        assert_eq!(pods.of("u", Some("i"), late_ns + KEEP_GONE_NS, || None), None);
    }

    #[test]
    fn the_kubelet_is_to_be_asked_when_a_container_is_not_known() {
        let (mut pods, wanted) = (Pods::default(), Arc::new(Notify::new()));
        pods.ask_by(Arc::clone(&wanted));
        pods.told(0, vec![]);
        let is_wanted = || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
            let soon = std::time::Duration::from_millis(1);
            runtime.block_on(async { tokio::time::timeout(soon, wanted.notified()).await.is_ok() })
        };
        assert!(!is_wanted());
        pods.of("u", Some("i"), 0, || None);
        assert!(is_wanted());
        // It is not asked again at each event of somebody whom it does not know.
        pods.of("u", Some("i"), 1, || None);
        assert!(!is_wanted());
    }
}
