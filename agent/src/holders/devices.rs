//! Which GPU a process means by its own number of a device: `CUDA_VISIBLE_DEVICES` and its runtime number them as they like.

use std::collections::{BTreeMap, BTreeSet};

use super::{Gpu, label, relabelled};
use crate::{
    gpu::Source,
    series::{Point, cuda::DEVICE_INFO},
};

/// GPUs by their UUIDs.
type Gpus = BTreeMap<String, Gpu>;

/// Names the GPUs that the driver told processes of, and says which one a process has that asked nobody in our sight.
pub fn identify(points: &mut Vec<Point>, gpus: &Gpus) {
    let mut asked: BTreeSet<u32> = BTreeSet::new();
    for point in points.iter_mut().filter(|point| *point.series == DEVICE_INFO) {
        asked.extend(label(point, "pid").parse::<u32>());
        if let Some((uuid, instance)) = listed(gpus, label(point, "UUID")) {
            point.labels = relabelled(point, |name| match name {
                "UUID" => Some(uuid.clone()),
                "GPU_I_ID" => Some(words(instance)),
                _ => None,
            });
        }
    }
    let mut silent: BTreeMap<u32, BTreeSet<String>> = BTreeMap::new();
    for point in points.iter().filter(|point| point.series.labels.contains(&"device")) {
        let Ok(pid) = label(point, "pid").parse() else { continue };
        if !asked.contains(&pid) {
            silent.entry(pid).or_default().insert(label(point, "device").to_owned());
        }
    }
    for (pid, devices) in silent {
        let known = devices.iter().filter(|device| *device != UNKNOWN).count();
        let Some((uuid, instance)) = only(gpus, pid).filter(|_| known <= 1) else { continue };
        points.extend(devices.iter().map(|device| {
            let source = Source::Processes.as_str();
            let labels = [&*pid.to_string(), "", "", "", "", device, uuid, &words(instance), source];
            Point::new(&DEVICE_INFO, &labels, 1.0)
        }));
    }
}

/// GPUs that the process has, as far as somebody tells of it, or did a moment ago.
pub fn of_process(points: &[Point], gpus: &Gpus, pid: u32, now_boot_ns: u64) -> BTreeSet<String> {
    let infos = points.iter().filter(|point| *point.series == DEVICE_INFO && label(point, "pid") == pid.to_string());
    let told = infos.map(|point| label(point, "UUID").to_owned());
    let parts = parts(gpus, pid).filter(|(_, gpu, _)| gpu.is_fresh(now_boot_ns));
    told.chain(parts.map(|(uuid, ..)| uuid.to_owned())).collect()
}

/// The label of a device that nobody told of.
const UNKNOWN: &str = "unknown";

/// The GPU, or the instance of one, whose UUID this is but for what is in front of it.
fn listed(gpus: &Gpus, uuid: &str) -> Option<(String, Option<u32>)> {
    let whole = format!("GPU-{uuid}");
    if gpus.contains_key(&whole) {
        return Some((whole, None));
    }
    let part = format!("MIG-{uuid}");
    gpus.iter().find_map(|(whole, gpu)| Some((whole.clone(), Some(*gpu.instances.get(&part)?))))
}

/// All that NVML has, or had, the process on.
fn parts(gpus: &Gpus, pid: u32) -> impl Iterator<Item = (&str, &Gpu, Option<u32>)> {
    gpus.iter().flat_map(move |(uuid, gpu)| {
        gpu.processes
            .range((pid, None)..=(pid, Some(u32::MAX)))
            .map(move |(_, instance)| (uuid.as_str(), gpu, *instance))
    })
}

/// The one part on which the process is, once all GPUs have told who is there.
fn only(gpus: &Gpus, pid: u32) -> Option<(&str, Option<u32>)> {
    let mut parts = parts(gpus, pid).filter(|_| gpus.values().all(|gpu| gpu.is_looked));
    let (uuid, gpu, instance) = parts.next().filter(|_| parts.next().is_none())?;
    (!gpu.is_silent).then_some((uuid, instance))
}

fn words(instance: Option<u32>) -> String {
    instance.map(|instance| instance.to_string()).unwrap_or_default()
}
