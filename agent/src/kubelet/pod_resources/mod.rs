//! Which container was given which GPU, as the kubelet has it: `List` of its pod-resources socket, every ten seconds.
//!
//! The answer is believed as far as it goes: names that Kubernetes would not take are left out. Whether this node has such
//! devices is for [`holders`](crate::holders) to say.

mod client;
mod message;
#[cfg(test)]
mod tests;

use std::{path::PathBuf, time::Duration};

use serde::Deserialize;
use tokio::sync::{mpsc, watch};

use self::{client::AskError, message::ListResponse};
use crate::{
    clock,
    core::chain,
    gpu::Holder,
    identity::pod::{is_label, is_name},
    message::Message,
    series::{Point, Sample, gpu::holder::ALLOCATIONS},
};

/// What samples of the allocations are called.
const SOURCE: &str = "kubelet:pod-resources";

const EVERY: Duration = Duration::from_secs(10);

/// Where there has been no socket, one is looked for again.
const LOOK_AGAIN: Duration = Duration::from_secs(60);

/// Devices of all containers that are kept: eight GPUs in a hundred slices each.
const MOST: usize = 1024;

/// No device id is longer.
const MOST_ID_BYTES: usize = 128;

/// The names of NVIDIA's device plugin; its other operators give network cards below `nvidia.com/` too.
const RESOURCES: [&str; 2] = ["nvidia.com/gpu", "nvidia.com/gpu.shared"];

/// And those of instances: `nvidia.com/mig-1g.10gb`.
const INSTANCES: &str = "nvidia.com/mig-";

/// NVIDIA's driver of dynamic resources.
const DRA_DRIVER: &str = "gpu.nvidia.com";

/// Where the kubelet tells which container has which device.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PodResourcesConfig {
    pub socket: PathBuf,
    /// Resources of GPUs beside `nvidia.com/gpu`, `nvidia.com/gpu.shared` and `nvidia.com/mig-…`.
    pub resources: Vec<String>,
}

impl Default for PodResourcesConfig {
    fn default() -> Self {
        Self { socket: PathBuf::from("/var/lib/kubelet/pod-resources/kubelet.sock"), resources: Vec::new() }
    }
}

/// What the kubelet gave to a container.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Allocation {
    pub holder: Holder,
    pub device: String,
}

/// Asks until it is told to stop.
pub async fn run(config: PodResourcesConfig, messages: mpsc::Sender<Message>, mut stop: watch::Receiver<bool>) {
    let mut said: Option<String> = None;
    let (mut was_there, mut was_ever_there) = (None, false);
    loop {
        let taken_boot_ns = clock::boot_ns();
        let asked = tokio::select! {
            asked = client::list(&config.socket) => asked,
            _ = stop.wait_for(|stop| *stop) => return,
        };
        let is_there = !matches!(asked, Err(AskError::NoSocket));
        let allocations = asked.map(|answer| config.allocations(answer));
        let allocations = allocations.map_err(|error| format!("{}: {}", config.socket.display(), chain(&error)));
        // Once for each reason, and never where there is no kubelet.
        let why = allocations.as_ref().err().cloned();
        if let Some(why) = why.as_ref().filter(|why| is_there && said.as_ref() != Some(*why)) {
            tracing::warn!(%why, "the kubelet does not say who has which gpu");
        }
        said = why;
        #[expect(clippy::cast_precision_loss, reason = "a node has few")]
        let points = allocations.as_ref().map(|given| vec![Point::new(&ALLOCATIONS, &[], given.len() as f64)]);
        let points = points.map_err(|why| if is_there { why.clone() } else { format!("absent ({why})") });
        let sample = Sample { source: SOURCE.to_owned(), taken_boot_ns, points };
        // A node without a kubelet is no news every minute.
        let sample = Some(Message::Sample(sample)).filter(|_| is_there || was_there != Some(false));
        for message in std::iter::once(Message::Allocations(allocations.unwrap_or_default())).chain(sample) {
            if messages.send(message).await.is_err() {
                return;
            }
        }
        was_there = Some(is_there);
        // A kubelet that starts anew makes its socket anew.
        was_ever_there |= is_there;
        tokio::select! {
            () = tokio::time::sleep(if was_ever_there { EVERY } else { LOOK_AGAIN }) => {}
            _ = stop.wait_for(|stop| *stop) => return,
        }
    }
}

impl PodResourcesConfig {
    /// The GPUs among what the kubelet has given, as far as the names are such.
    fn allocations(&self, answer: ListResponse) -> Vec<Allocation> {
        let pods = answer.pod_resources.into_iter().filter(|pod| is_label(&pod.namespace) && is_name(&pod.name));
        let containers = pods.flat_map(|pod| {
            let of_pod =
                move |container: String| Holder { namespace: pod.namespace.clone(), pod: pod.name.clone(), container };
            let containers = pod.containers.into_iter().filter(|container| is_label(&container.name));
            containers.map(move |container| {
                let given = container.devices.into_iter().filter(|given| self.is_gpu(&given.resource_name));
                let given = given.flat_map(|given| given.device_ids);
                let claimed = container.dynamic_resources.into_iter().flat_map(|claim| claim.claim_resources);
                let claimed = claimed.filter(|claim| claim.driver_name == DRA_DRIVER).map(|claim| claim.device_name);
                (of_pod(container.name), given.chain(claimed).collect::<Vec<_>>())
            })
        });
        let all = containers.flat_map(|(holder, devices)| {
            devices.into_iter().map(move |device| Allocation { holder: holder.clone(), device })
        });
        all.filter(|allocation| allocation.device.len() <= MOST_ID_BYTES).take(MOST).collect()
    }

    fn is_gpu(&self, resource: &str) -> bool {
        RESOURCES.contains(&resource)
            || resource.starts_with(INSTANCES)
            || self.resources.iter().any(|known| known == resource)
    }
}
