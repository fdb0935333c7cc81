//! `/proc/PID/cgroup` → cgroup path, container, pod.
//!
//! The file has one line per hierarchy, `id:controllers:path` (cgroups(7)): v2 has one line `0::/path`, v1 one per
//! controller, a hybrid system both. Container runtimes put the container's id, 64 hexadecimal digits, into the last
//! components of the path; the kubelet puts the pod's uid above it. The names come from the runtimes' own naming
//! (runc's systemd and cgroupfs drivers, docker, containerd, cri-o, podman).

/// What a cgroup path tells about a process.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Cgroup {
    /// Below the mount point of the hierarchy; `/` is the root.
    pub path: Vec<u8>,
    pub container: Option<Container>,
    /// The Kubernetes pod's uid, with dashes.
    pub pod_uid: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Container {
    /// 64 lower-case hexadecimal digits.
    pub id: String,
    /// Who made it, as far as its cgroup tells: `docker`, `containerd`, `cri-o`, `podman`; else `unknown`.
    pub runtime: &'static str,
}

/// A container id is a SHA-256 in hexadecimal.
const CONTAINER_ID_DIGITS: usize = 64;

/// Names that runtimes put before the id, longest first.
const PREFIXES: &[(&str, &str)] = &[
    ("cri-containerd-", "containerd"),
    ("cri-containerd:", "containerd"),
    ("containerd-", "containerd"),
    ("libpod-conmon-", "podman"),
    ("libpod-", "podman"),
    ("crio-", "cri-o"),
    ("docker-", "docker"),
];

impl Cgroup {
    /// Reads the whole file. The line that names a container is taken; else the v2 line; else the longest path.
    pub fn parse(file: &[u8]) -> Option<Self> {
        let mut best: Option<(Self, (bool, bool, usize))> = None;
        for line in file.split(|&byte| byte == b'\n') {
            let mut fields = line.splitn(3, |&byte| byte == b':');
            let (Some(_id), Some(controllers), Some(path)) = (fields.next(), fields.next(), fields.next()) else {
                continue;
            };
            let cgroup = Self::of_path(path);
            let rank = (cgroup.container.is_some(), controllers.is_empty(), path.len());
            if best.as_ref().is_none_or(|(_, before)| rank > *before) {
                best = Some((cgroup, rank));
            }
        }
        best.map(|(cgroup, _)| cgroup)
    }

    /// A container's, as far as the host's own managers say so: below their sessions users name cgroups as they like.
    pub fn is_contained(&self) -> bool {
        self.container.is_some() && !self.path.starts_with(b"/user.slice/")
    }

    fn of_path(path: &[u8]) -> Self {
        let text = String::from_utf8_lossy(path);
        let components = || text.split('/').filter(|name| !name.is_empty());
        // The innermost container is the one that the process is in.
        let container = components().rev().enumerate().find_map(|(above, name)| {
            let mut parents = components().rev().skip(above + 1);
            container(name, parents.next())
        });
        // The outermost pod is the kubelet's word: below it, and below a user's session, others name their cgroups.
        let is_users = components().next() == Some("user.slice");
        let pod_uid = components().filter(|_| !is_users).find_map(pod_uid);
        Self { path: path.to_vec(), container, pod_uid }
    }
}

/// The container that one component names: `docker-ID.scope`, `cri-containerd-ID.scope`, or a bare `ID` below
/// `docker`, `libpod_parent` or a pod's directory.
fn container(name: &str, parent: Option<&str>) -> Option<Container> {
    let bare = name.strip_suffix(".scope").unwrap_or(name);
    let bare = bare.rsplit(':').next().unwrap_or(bare);
    for (prefix, runtime) in PREFIXES {
        if let Some(id) = bare.strip_prefix(prefix).or_else(|| name.split_once(prefix).map(|(_, id)| id)) {
            let id = id.strip_suffix(".scope").unwrap_or(id);
            if is_container_id(id) {
                return Some(Container { id: id.to_owned(), runtime });
            }
        }
    }
    is_container_id(bare).then(|| {
        let runtime = match parent {
            Some("docker") => "docker",
            Some("libpod_parent") => "podman",
            _ => "unknown",
        };
        Container { id: bare.to_owned(), runtime }
    })
}

fn is_container_id(text: &str) -> bool {
    text.len() == CONTAINER_ID_DIGITS && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// `pod<uid>` (cgroupfs driver) or `kubepods-burstable-pod<uid with underscores>.slice` (systemd driver).
fn pod_uid(name: &str) -> Option<String> {
    let name = name.strip_suffix(".slice").unwrap_or(name);
    let (front, uid) = name.rsplit_once("pod")?;
    let by_kubelet = front.is_empty() || (front.starts_with("kubepods") && front.ends_with('-'));
    if !by_kubelet {
        return None;
    }
    let uid = uid.replace('_', "-");
    // A uid is a UUID; static pods have 32 digits without dashes.
    let digits = uid.bytes().filter(u8::is_ascii_hexdigit).count();
    let dashes = uid.bytes().filter(|&byte| byte == b'-').count();
    (digits == 32 && digits + dashes == uid.len()).then_some(uid)
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};
    use proptest::prelude::*;

    use super::*;

    const ID: &str = "8f3b0a52c1d94e6f7a8b9c0d1e2f3a4b5c6d7e8f90a1b2c3d4e5f60718293a4b";

    #[expect(clippy::needless_pass_by_value, reason = "reads better in the tests")]
    fn check(file: &str, expect: Expect) {
        let said = Cgroup::parse(file.replace("ID", ID).as_bytes()).map_or_else(
            || "nothing".to_owned(),
            |cgroup| {
                let path = String::from_utf8_lossy(&cgroup.path).replace(ID, "ID");
                let container = cgroup.container.map_or("none".into(), |c| format!("{} {}", c.runtime, &c.id[..4]));
                format!("{path} container={container} pod={}", cgroup.pod_uid.as_deref().unwrap_or("none"))
            },
        );
        expect.assert_eq(&said);
    }

    #[test]
    fn a_v2_system_has_one_line() {
        check(
            "0::/system.slice/docker-ID.scope\n",
            expect!["/system.slice/docker-ID.scope container=docker 8f3b pod=none"],
        );
        check("0::/system.slice/vllm.service\n", expect!["/system.slice/vllm.service container=none pod=none"]);
    }

    #[test]
    fn a_pod_is_named_by_either_kubelet_driver() {
        check(
            "0::/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod3c1f2a4e_5b6c_7d8e_9f0a_1b2c3d4e5f60.slice/cri-containerd-ID.scope\n",
            expect![
                "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod3c1f2a4e_5b6c_7d8e_9f0a_1b2c3d4e5f60.slice/cri-containerd-ID.scope container=containerd 8f3b pod=3c1f2a4e-5b6c-7d8e-9f0a-1b2c3d4e5f60"
            ],
        );
        check(
            "11:memory:/kubepods/besteffort/pod3c1f2a4e-5b6c-7d8e-9f0a-1b2c3d4e5f60/ID\n",
            expect![
                "/kubepods/besteffort/pod3c1f2a4e-5b6c-7d8e-9f0a-1b2c3d4e5f60/ID container=unknown 8f3b pod=3c1f2a4e-5b6c-7d8e-9f0a-1b2c3d4e5f60"
            ],
        );
        check(
            "0::/system.slice/kubepods-besteffort-pod1.slice:cri-containerd:ID\n",
            expect![
                "/system.slice/kubepods-besteffort-pod1.slice:cri-containerd:ID container=containerd 8f3b pod=none"
            ],
        );
    }

    #[test]
    fn who_may_name_cgroups_of_its_own_cannot_pass_for_another_pod() {
        let pod = "pod3c1f2a4e-5b6c-7d8e-9f0a-1b2c3d4e5f60";
        check(
            &format!("0::/user.slice/user-1000.slice/user@1000.service/{pod}/x\n"),
            expect![
                "/user.slice/user-1000.slice/user@1000.service/pod3c1f2a4e-5b6c-7d8e-9f0a-1b2c3d4e5f60/x container=none pod=none"
            ],
        );
        check(
            &format!("0::/kubepods/pod00000000-5b6c-7d8e-9f0a-1b2c3d4e5f60/ID/{pod}\n"),
            expect![
                "/kubepods/pod00000000-5b6c-7d8e-9f0a-1b2c3d4e5f60/ID/pod3c1f2a4e-5b6c-7d8e-9f0a-1b2c3d4e5f60 container=unknown 8f3b pod=00000000-5b6c-7d8e-9f0a-1b2c3d4e5f60"
            ],
        );
    }

    #[test]
    fn a_hybrid_system_names_the_container_in_its_v1_lines() {
        check(
            "12:pids:/docker/ID\n1:name=systemd:/docker/ID\n0::/\n",
            expect!["/docker/ID container=docker 8f3b pod=none"],
        );
        check("12:pids:/\n0::/user.slice\n", expect!["/user.slice container=none pod=none"]);
    }

    #[test]
    fn podman_and_cri_o_are_told_apart() {
        check(
            "0::/machine.slice/libpod-ID.scope/container\n",
            expect!["/machine.slice/libpod-ID.scope/container container=podman 8f3b pod=none"],
        );
        check("0::/crio-ID.scope\n", expect!["/crio-ID.scope container=cri-o 8f3b pod=none"]);
    }

    #[test]
    fn what_only_looks_like_an_id_is_none() {
        check("0::/docker-ABCDEF.scope\n", expect!["/docker-ABCDEF.scope container=none pod=none"]);
        check(
            "0::/tripod3c1f2a4e-5b6c-7d8e-9f0a-1b2c3d4e5f60\n",
            expect!["/tripod3c1f2a4e-5b6c-7d8e-9f0a-1b2c3d4e5f60 container=none pod=none"],
        );
        check("garbage", expect!["nothing"]);
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes: Vec<u8>) {
            let _ = Cgroup::parse(&bytes);
        }
    }
}
