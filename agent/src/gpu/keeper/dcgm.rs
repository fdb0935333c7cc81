//! The numbers by the names of dcgm-exporter.

use std::{collections::BTreeMap, sync::Arc};

use crate::{
    gpu::{
        held::{Held, Holder},
        identity::Identity,
    },
    series::{
        Point, Value,
        gpu::{
            GPU,
            dcgm::{ALIASES, Alias},
        },
    },
};

/// The labels of one GPU and of its instances, made once: whoever has it, or what it is, never changes without a new one of these.
#[derive(Debug, Default)]
pub struct Labels(BTreeMap<Option<u32>, Arc<[String]>>);

impl Labels {
    /// The same numbers again, where dcgm-exporter has a name for them.
    pub fn aliases(&mut self, points: &[Point], identity: &Identity, host: &str, held: &Held) -> Vec<Point> {
        let of = |point: &Point| {
            let own = point.labels.get(GPU.len()..)?;
            let (alias, instance, profile) = ALIASES.iter().find_map(|alias| matching(alias, point, own))?;
            let make = || labels(identity, host, (instance, profile), held);
            let labels = Arc::clone(self.0.entry(instance).or_insert_with(make));
            let value = Value::Number(point.number()? * alias.factor);
            Some(Point { series: alias.series, labels, value })
        };
        points.iter().filter_map(of).collect()
    }
}

/// The alias of the point, with the instance that it is of.
fn matching<'a>(alias: &'a Alias, point: &Point, own: &'a [String]) -> Option<(&'a Alias, Option<u32>, &'a str)> {
    if !std::ptr::eq(alias.of, point.series) {
        return None;
    }
    if !alias.is_of_instance {
        return (*alias.own == *own).then_some((alias, None, ""));
    }
    let [id, profile, own @ ..] = own else { return None };
    (*alias.own == *own).then_some((alias, id.parse().ok(), profile))
}

/// The values of [`LABELS`](crate::series::gpu::dcgm::LABELS).
fn labels(identity: &Identity, host: &str, (instance, profile): (Option<u32>, &str), held: &Held) -> Arc<[String]> {
    let [uuid, gpu, simulated] = identity.labels();
    let device = identity.minor.map(|minor| format!("nvidia{minor}")).unwrap_or_default();
    let part = (uuid, instance);
    let holder = held.sole(&part).cloned();
    let Holder { namespace, pod, container } = holder.unwrap_or_default();
    let (uuid, instance) = part;
    let labels = [
        gpu,
        uuid,
        identity.pci_bus_id.clone(),
        device,
        instance.map(|id| id.to_string()).unwrap_or_default(),
        profile.to_owned(),
        host.to_owned(),
        host.to_owned(),
        identity.driver.clone(),
        pod,
        namespace,
        container,
        simulated,
    ];
    labels.into()
}
