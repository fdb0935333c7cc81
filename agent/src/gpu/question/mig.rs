//! The parts of a GPU under MIG: GPU instances with their memory, and the MIG devices (compute instances) in them.
//!
//! Instances are listed anew in each full round; their counters of GPM are read in the light ones.

use std::{borrow::Cow, collections::BTreeMap};

use nvml_wrapper::{Device, error::NvmlError, gpm::GpmSample};

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
    /// Of the first MIG device in it.
    uuid: String,
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
    let mut refused = None;
    for index in 0..gpu.device.mig_device_count()?.min(MOST) {
        let listed = gpu.device.mig_device_by_index(index).and_then(|device| {
            let id = raw::gpu_instance_id(&device)?;
            let (profile, uuid) = (profile(&device), device.uuid()?);
            Ok((device, id, profile, uuid))
        });
        let (device, id, profile, uuid) = match listed {
            Ok(listed) => listed,
            // Places without a device in between are usual.
            Err(NvmlError::NotFound | NvmlError::InvalidArg) => continue,
            Err(error) => {
                refused = refused.or(Some(error));
                continue;
            }
        };
        let mut labels = Instance::labels(id, &profile);
        gpu.instances.entry(id).or_insert_with(|| {
            match memory(&device, &labels) {
                Ok(told) => measures.extend(told),
                Err(error) => refused = refused.take().or(Some(error)),
            }
            // Another instance may have the number of one that is gone.
            let same = before.remove(&id).filter(|before| before.uuid == uuid && before.profile == profile);
            Instance { profile: profile.clone(), uuid: uuid.clone(), gpm: same.and_then(|before| before.gpm) }
        });
        let compute = raw::compute_instance_id(&device).map(|id| id.to_string()).unwrap_or_default();
        labels.extend([Cow::Owned(compute), Cow::Owned(uuid)]);
        measures.push(Measure { series: &MIG_INFO, labels, number: 1.0 });
    }
    some_of(measures, refused)
}

/// What was told, or why nothing was.
fn some_of(measures: Vec<Measure>, refused: Option<NvmlError>) -> Answer {
    match refused {
        Some(error) if measures.is_empty() => Err(error),
        _ => Ok(measures),
    }
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
    let (mut measures, mut refused) = (Vec::new(), None);
    let Asker { nvml, device, instances, .. } = gpu;
    for (id, instance) in instances {
        // One that is gone since it was listed costs the others nothing.
        let told = device.gpm_mig_sample(*id).and_then(|now: GpmSample<'static>| {
            let Some(before) = instance.gpm.replace(now) else { return Ok(Vec::new()) };
            let Some(now) = &instance.gpm else { return Ok(Vec::new()) };
            activity::between(nvml, &before, now)
        });
        let told = match told {
            Ok(told) => told,
            Err(error) => {
                refused = refused.or(Some(error));
                continue;
            }
        };
        for measure in told {
            let Some(series) = activity::of_instance(measure.series) else { continue };
            let labels = Instance::labels(*id, &instance.profile).into_iter().chain(measure.labels).collect();
            measures.push(Measure { series, labels, number: measure.number });
        }
    }
    some_of(measures, refused)
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
