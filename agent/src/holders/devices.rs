//! Which GPU a process means by its own number of a device: `CUDA_VISIBLE_DEVICES` and its runtime number them as they like.

use std::collections::{BTreeMap, BTreeSet};

use super::{Gpu, label, relabelled};
use crate::{
    gpu::Source,
    series::{Point, cuda::DEVICE_INFO},
};

/// GPUs by their UUIDs.
type Gpus = BTreeMap<String, Gpu>;

/// The label of a device that nobody told of.
const UNKNOWN: &str = "unknown";

/// What the last sample said of processes, by number.
#[derive(Debug, Default)]
pub struct Devices {
    /// The devices that each uses, and since when it is these.
    used: BTreeMap<u32, (BTreeSet<String>, u64)>,
    /// The GPUs that they are.
    gpus: BTreeMap<u32, BTreeSet<String>>,
}

impl Devices {
    /// Of the devices that processes use, names the GPUs that the driver told them of, and the one of who asked nobody in our sight. Who asked
    /// of a device need not use it.
    pub fn observe(&mut self, points: &mut Vec<Point>, taken_boot_ns: u64, gpus: &Gpus, are_all_known: bool) {
        self.use_of(points, taken_boot_ns);
        points.retain_mut(|point| *point.series != DEVICE_INFO || self.is_named(point, gpus));
        let is_info = |point: &&Point| *point.series == DEVICE_INFO;
        let asked: BTreeSet<u32> = points.iter().filter(is_info).filter_map(pid).collect();
        let others = self.used.iter().filter(|(pid, _)| are_all_known && !asked.contains(pid));
        for (&pid, (devices, since_boot_ns)) in others {
            let known = devices.iter().filter(|device| *device != UNKNOWN).count();
            let sole = sole(gpus, pid, *since_boot_ns).filter(|_| known <= 1);
            points.extend(
                sole.into_iter()
                    .flat_map(|(uuid, instance)| devices.iter().map(move |device| info(pid, device, uuid, instance))),
            );
        }
        self.gpus.clear();
        for point in points.iter().filter(is_info) {
            let Some(pid) = pid(point) else { continue };
            self.gpus.entry(pid).or_default().insert(label(point, "UUID").to_owned());
        }
    }

    /// GPUs on which NVML lists the process, or did a moment ago; else those that its devices are.
    pub fn of_process(&self, gpus: &Gpus, pid: u32, now_boot_ns: u64) -> Vec<String> {
        let listed = parts(gpus, pid).filter(|(_, gpu, _)| gpu.is_fresh(now_boot_ns));
        let listed: BTreeSet<String> = listed.map(|(uuid, ..)| uuid.to_owned()).collect();
        let told = || self.gpus.get(&pid).cloned().unwrap_or_default();
        (if listed.is_empty() { told() } else { listed }).into_iter().collect()
    }

    fn use_of(&mut self, points: &[Point], taken_boot_ns: u64) {
        let mut used: BTreeMap<u32, BTreeSet<String>> = BTreeMap::new();
        let of_devices = |point: &&Point| *point.series != DEVICE_INFO && point.series.labels.contains(&"device");
        for point in points.iter().filter(of_devices) {
            let Some(pid) = pid(point) else { continue };
            used.entry(pid).or_default().insert(label(point, "device").to_owned());
        }
        let mut before = std::mem::take(&mut self.used);
        let since = |(pid, devices)| {
            let same = before.remove(&pid).filter(|(known, _)| *known == devices);
            (pid, same.unwrap_or((devices, taken_boot_ns)))
        };
        self.used = used.into_iter().map(since).collect();
    }

    /// Whether it is a device in use, and the GPU has its whole name then, if NVML lists it.
    fn is_named(&self, point: &mut Point, gpus: &Gpus) -> bool {
        let Some(pid) = pid(point) else { return false };
        if !self.used.get(&pid).is_some_and(|(devices, _)| devices.contains(label(point, "device"))) {
            return false;
        }
        let told = label(point, "UUID");
        let (whole, part) = (format!("GPU-{told}"), format!("MIG-{told}"));
        let in_instance = || gpus.iter().find_map(|(uuid, gpu)| Some((uuid.clone(), Some(*gpu.instances.get(&part)?))));
        let (uuid, instance) = match gpus.get(&whole) {
            // Older forms of the question are answered with the GPU also where it is an instance.
            Some(gpu) if !gpu.instances.is_empty() => {
                let mut of_it = parts(gpus, pid).filter(|(uuid, ..)| *uuid == whole);
                let Some((_, _, instance @ Some(_))) = of_it.next() else { return false };
                if of_it.next().is_some() {
                    return false;
                }
                (whole, instance)
            }
            Some(_) => (whole, None),
            None => match in_instance() {
                Some(known) => known,
                None => return true,
            },
        };
        point.labels = relabelled(point, |name| match name {
            "UUID" => Some(uuid.clone()),
            "GPU_I_ID" => Some(words(instance)),
            _ => None,
        });
        true
    }
}

/// All that NVML has, or had, the process on.
fn parts(gpus: &Gpus, pid: u32) -> impl Iterator<Item = (&str, &Gpu, Option<u32>)> {
    gpus.iter().flat_map(move |(uuid, gpu)| {
        let of_it = gpu.processes.range((pid, None)..=(pid, Some(u32::MAX)));
        of_it.map(move |(_, instance)| (uuid.as_str(), gpu, *instance))
    })
}

/// The one part on which the process is, once every GPU has listed all that are there since then.
fn sole(gpus: &Gpus, pid: u32, since_boot_ns: u64) -> Option<(&str, Option<u32>)> {
    if !gpus.values().all(|gpu| gpu.listed_boot_ns > since_boot_ns) {
        return None;
    }
    let mut parts = parts(gpus, pid);
    let (uuid, gpu, instance) = parts.next().filter(|_| parts.next().is_none())?;
    (!gpu.is_silent).then_some((uuid, instance))
}

fn info(pid: u32, device: &str, uuid: &str, instance: Option<u32>) -> Point {
    let (pid, instance) = (pid.to_string(), words(instance));
    let labels = [&*pid, "", "", "", "", device, uuid, &instance, Source::Processes.as_str()];
    Point::new(&DEVICE_INFO, &labels, 1.0)
}

fn pid(point: &Point) -> Option<u32> {
    label(point, "pid").parse().ok()
}

fn words(instance: Option<u32>) -> String {
    instance.map(|instance| instance.to_string()).unwrap_or_default()
}
