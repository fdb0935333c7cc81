//! Cgroups of the node, as places in which processes are.

use std::{
    ffi::OsStr,
    fs,
    os::unix::{ffi::OsStrExt as _, fs::MetadataExt as _},
    path::Path,
};

use plumbline_policy::{Pod as PodFacts, Subject};

use crate::{
    identity::{cgroup::Cgroup, pod::Pod},
    probes::kernel::cgroup2_root,
};

/// Cgroups that are known; of others their nearest known parent is asked.
pub(super) const MAX_CGROUPS: usize = 16_384;

/// Where a process is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    pub cgroup: Cgroup,
    pub pod: Option<Pod>,
}

impl Place {
    pub fn lend<T>(&self, look: impl FnOnce(&Subject<'_>) -> T) -> T {
        look(&Subject {
            cgroup: Some(&self.cgroup.path),
            container: self.cgroup.container.as_ref().map(|container| &*container.id),
            pod_uid: self.cgroup.pod_uid.as_deref(),
            image: self.pod.as_ref().and_then(|pod| pod.image.as_deref()),
            pod: self.pod.as_ref().map(|pod| PodFacts {
                namespace: &pod.namespace,
                name: &pod.name,
                labels: &pod.labels,
            }),
            ..Subject::default()
        })
    }
}

/// Whether the cgroup of this path has this v2 id, which is the inode number of its directory.
pub(super) fn is_at(path: &[u8], id: u64) -> bool {
    let below = Path::new(OsStr::from_bytes(path.strip_prefix(b"/").unwrap_or(path)));
    cgroup2_root().and_then(|root| fs::metadata(root.join(below))).is_ok_and(|meta| meta.ino() == id)
}

/// Every cgroup of the v2 hierarchy, by its id.
pub(super) fn tree(root: &Path) -> impl Iterator<Item = (u64, Cgroup)> {
    let mut left = vec![root.to_owned()];
    let root = root.to_owned();
    std::iter::from_fn(move || {
        let directory = left.pop()?;
        let inner = fs::read_dir(&directory).into_iter().flatten().flatten();
        left.extend(inner.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())).map(|entry| entry.path()));
        Some(directory)
    })
    .take(MAX_CGROUPS)
    .filter_map(move |directory| {
        let below = directory.strip_prefix(&root).ok()?.as_os_str().as_encoded_bytes();
        Some((fs::metadata(&directory).ok()?.ino(), Cgroup::parse(&[b"0::/", below].concat())?))
    })
}
