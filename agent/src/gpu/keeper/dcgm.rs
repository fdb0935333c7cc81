//! The numbers by the names of dcgm-exporter.

use std::sync::Arc;

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
pub struct Labels(Vec<(Option<u32>, String, Arc<[String]>)>);

impl Labels {
    /// The same numbers again, where dcgm-exporter has a name for them.
    ///
    /// Of a divided GPU, what its instances tell is not told of the whole too: a sum over both would be twice the truth.
    pub fn aliases(
        &mut self,
        points: &[Point],
        identity: &Identity,
        host: &str,
        held: &Held,
        is_divided: bool,
    ) -> Vec<Point> {
        let of = |point: &Point| {
            let own = point.labels.get(GPU.len()..)?;
            let (alias, instance, profile) = ALIASES.iter().find_map(|alias| matching(alias, point, own))?;
            if is_divided && instance.is_none() && has_parts(alias) {
                return None;
            }
            let is_known = |known: &&(Option<u32>, String, _)| known.0 == instance && known.1 == profile;
            let labels = match self.0.iter().find(is_known) {
                Some((.., labels)) => Arc::clone(labels),
                None => {
                    let labels = labels(identity, host, (instance, profile), held);
                    self.0.retain(|(known, ..)| *known != instance);
                    self.0.push((instance, profile.to_owned(), Arc::clone(&labels)));
                    labels
                }
            };
            let value = Value::Number(point.number()? * alias.factor);
            Some(Point { series: alias.series, labels, value })
        };
        points.iter().filter_map(of).collect()
    }
}

/// Whether instances have a number by this name too.
fn has_parts(alias: &Alias) -> bool {
    ALIASES.iter().any(|part| part.is_of_instance && std::ptr::eq(part.series, alias.series))
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
