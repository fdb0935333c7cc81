//! The numbers by the names of dcgm-exporter.

use std::sync::Arc;

use crate::{
    gpu::identity::Identity,
    series::{Point, Value, gpu::GPU, gpu::dcgm::ALIASES},
};

/// The values of [`LABELS`](crate::series::gpu::dcgm::LABELS).
pub fn labels(identity: &Identity, host: &str) -> Arc<[String]> {
    let [uuid, gpu, simulated] = identity.labels();
    let device = identity.minor.map(|minor| format!("nvidia{minor}")).unwrap_or_default();
    let nobody = String::new;
    let labels = [
        gpu,
        uuid,
        identity.pci_bus_id.clone(),
        device,
        host.to_owned(),
        host.to_owned(),
        identity.driver.clone(),
        nobody(),
        nobody(),
        nobody(),
        simulated,
    ];
    labels.into()
}

/// The same numbers again, where dcgm-exporter has a name for them.
pub fn aliases(points: &[Point], labels: &Arc<[String]>) -> Vec<Point> {
    let of = |point: &Point| {
        let own = point.labels.get(GPU.len()..)?;
        let alias = ALIASES.iter().find(|alias| std::ptr::eq(alias.of, point.series) && *alias.own == *own)?;
        let number = point.number()? * alias.factor;
        Some(Point { series: alias.series, labels: Arc::clone(labels), value: Value::Number(number) })
    };
    points.iter().filter_map(of).collect()
}
