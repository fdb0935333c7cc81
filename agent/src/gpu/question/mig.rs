//! The parts of a GPU under MIG: GPU instances with their memory, and the MIG devices (compute instances) in them.
//!
//! Instances are listed anew in each full round; their counters of GPM are read in the light ones.

use std::{borrow::Cow, collections::BTreeMap};

use nvml_wrapper::{Device, gpm::GpmSample};

use super::{Answer, HOPPER, Measure, Question, Round, activity, asker::Asker, exact, getter, known_wide, labelled};
use crate::{
    gpu::raw,
    series::gpu::mig::{
        MIG_DRAM_ACTIVE_RATIO, MIG_GRAPHICS_ACTIVE_RATIO, MIG_INFO, MIG_MEMORY_FREE_BYTES, MIG_MEMORY_TOTAL_BYTES,
        MIG_MEMORY_USED_BYTES, MIG_MODE, MIG_PIPE_ACTIVE_RATIO, MIG_SM_ACTIVE_RATIO, MIG_SM_OCCUPANCY_RATIO,
    },
};

/// No GPU is divided into more MIG devices.
const MOST: u32 = 16;

const DIVISIBLE: &str = "data-centre GPUs since Ampere";

pub(super) static QUESTIONS: &[Question] = &[
    getter("nvmlDeviceGetMigMode", Round::Full, DIVISIBLE, &[(&MIG_MODE, "now"), (&MIG_MODE, "pending")], |gpu| {
        let mode = gpu.device.mig_mode()?;
        let (now, pending) = (f64::from(mode.current.min(1)), f64::from(mode.pending.min(1)));
        gpu.is_divided = mode.current != 0;
        Ok(vec![labelled(&MIG_MODE, "now", now), labelled(&MIG_MODE, "pending", pending)])
    }),
    getter(
        "nvmlDeviceGetMigDeviceHandleByIndex",
        Round::Full,
        "GPUs that are divided by MIG",
        &[(&MIG_INFO, ""), (&MIG_MEMORY_USED_BYTES, ""), (&MIG_MEMORY_FREE_BYTES, ""), (&MIG_MEMORY_TOTAL_BYTES, "")],
        devices,
    ),
    getter(
        "nvmlGpmMigSampleGet",
        Round::Light,
        HOPPER,
        &[
            (&MIG_GRAPHICS_ACTIVE_RATIO, ""),
            (&MIG_SM_ACTIVE_RATIO, ""),
            (&MIG_SM_OCCUPANCY_RATIO, ""),
            (&MIG_PIPE_ACTIVE_RATIO, ""),
            (&MIG_DRAM_ACTIVE_RATIO, ""),
        ],
        gpm,
    ),
];

/// A GPU instance that was listed.
#[derive(Debug, Default)]
pub struct Instance {
    /// `1g.10gb`.
    profile: String,
    /// What GPM counted at the round before.
    gpm: Option<GpmSample<'static>>,
}

impl Instance {
    fn labels(id: u32, profile: &str) -> Vec<Cow<'static, str>> {
        vec![Cow::Owned(id.to_string()), Cow::Owned(profile.to_owned())]
    }
}

fn devices(gpu: &mut Asker) -> Answer {
    let mut before = std::mem::take(&mut gpu.instances);
    let mut measures = Vec::new();
    if !gpu.is_divided {
        return Ok(measures);
    }
    for index in 0..gpu.device.mig_device_count()?.min(MOST) {
        // Places without a device in between are usual.
        let Ok(device) = gpu.device.mig_device_by_index(index) else { continue };
        let Ok(id) = raw::gpu_instance_id(&device) else { continue };
        let profile = profile(&device);
        let mut labels = Instance::labels(id, &profile);
        gpu.instances.entry(id).or_insert_with(|| {
            measures.extend(memory(&device, &labels).unwrap_or_default());
            Instance { profile, gpm: before.remove(&id).and_then(|instance| instance.gpm) }
        });
        let compute = raw::compute_instance_id(&device).map(|id| id.to_string()).unwrap_or_default();
        labels.extend([Cow::Owned(compute), Cow::Owned(device.uuid().unwrap_or_default())]);
        measures.push(Measure { series: &MIG_INFO, labels, number: 1.0 });
    }
    Ok(measures)
}

fn memory(device: &Device<'_>, labels: &[Cow<'static, str>]) -> Answer {
    let memory = device.memory_info()?;
    let numbers = [
        (&MIG_MEMORY_USED_BYTES, memory.used),
        (&MIG_MEMORY_FREE_BYTES, memory.free),
        (&MIG_MEMORY_TOTAL_BYTES, memory.total),
    ];
    let measure = |(series, bytes)| Ok(Measure { series, labels: labels.to_vec(), number: exact(known_wide(bytes)?) });
    numbers.into_iter().map(measure).collect()
}

fn profile(device: &Device<'_>) -> String {
    device.name().map(|name| profile_in(&name).to_owned()).unwrap_or_default()
}

/// The end of the name, which is the GPU's name, `MIG` and the profile; empty where it is not. A compute instance that is less
/// than its GPU instance says so before it (`1c.3g.40gb`).
fn profile_in(name: &str) -> &str {
    let profile = name.rsplit_once(" MIG ").map_or("", |(_, profile)| profile);
    let is_compute = |part: &str| part.strip_suffix('c').is_some_and(|count| count.parse::<u8>().is_ok());
    match profile.split_once('.') {
        Some((compute, profile)) if is_compute(compute) => profile,
        _ => profile,
    }
}

/// What passed in each instance since the round before.
fn gpm(gpu: &mut Asker) -> Answer {
    let mut measures = Vec::new();
    let Asker { nvml, device, instances, .. } = gpu;
    for (id, instance) in instances {
        let now: GpmSample<'static> = device.gpm_mig_sample(*id)?;
        let Some(before) = instance.gpm.replace(now) else { continue };
        let Some(now) = &instance.gpm else { continue };
        for measure in activity::between(nvml, &before, now)? {
            let Some(series) = activity::of_instance(measure.series) else { continue };
            let labels = Instance::labels(*id, &instance.profile).into_iter().chain(measure.labels).collect();
            measures.push(Measure { series, labels, number: measure.number });
        }
    }
    Ok(measures)
}

/// What was listed, by GPU instance.
pub type Instances = BTreeMap<u32, Instance>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_profile_is_that_of_the_gpu_instance() {
        for (name, expect) in [
            ("NVIDIA A100-SXM4-80GB MIG 3g.40gb", "3g.40gb"),
            ("NVIDIA A100-SXM4-80GB MIG 1c.3g.40gb", "3g.40gb"),
            ("NVIDIA H100 80GB HBM3 MIG 1g.10gb+me", "1g.10gb+me"),
            ("NVIDIA A100-SXM4-80GB", ""),
            ("", ""),
        ] {
            assert_eq!(profile_in(name), expect, "{name}");
        }
    }
}
