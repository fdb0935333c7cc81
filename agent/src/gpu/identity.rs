//! What a GPU is, as opposed to how it does.

use std::sync::Arc;

use nvml_wrapper::{Device, error::NvmlError};
use serde::{Deserialize, Serialize};

use super::{nvml::Session, question::Measure};
use crate::series::{Point, Series, gpu::identity::INFO};

/// One GPU. What the driver does not tell is empty.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Identity {
    pub uuid: String,
    /// Means the same GPU for as long as NVML is open.
    pub index: u32,
    pub name: String,
    /// Domain (eight digits), bus, device and function, hexadecimal.
    pub pci_bus_id: String,
    /// The N of `/dev/nvidiaN`.
    pub minor: Option<u32>,
    pub serial: String,
    pub vbios: String,
    pub numa_node: Option<u32>,
    pub driver: String,
    pub is_simulated: bool,
}

impl Identity {
    /// A GPU that does not say its UUID is nobody.
    pub fn ask(session: &Session, index: u32) -> Result<(Self, Device<'static>), NvmlError> {
        let device = session.nvml.device_by_index(index)?;
        let identity = Self {
            uuid: device.uuid()?,
            index,
            name: device.name().unwrap_or_default(),
            pci_bus_id: device.pci_info().map(|pci| pci.bus_id).unwrap_or_default(),
            minor: device.minor_number().ok(),
            serial: device.serial().unwrap_or_default(),
            vbios: device.vbios_version().unwrap_or_default(),
            // "No affinity" is all ones.
            numa_node: device.numa_node_id().ok().filter(|node| *node != u32::MAX),
            driver: session.driver.clone(),
            is_simulated: session.is_simulated,
        };
        Ok((identity, device))
    }

    /// The values of [`GPU`](crate::series::gpu::GPU).
    pub fn labels(&self) -> [String; 3] {
        let simulated = if self.is_simulated { "true" } else { "false" };
        [self.uuid.clone(), self.index.to_string(), simulated.to_owned()]
    }

    /// A number of the GPU's own.
    pub fn number(&self, series: &'static Series, number: f64) -> Point {
        let [uuid, gpu, simulated] = self.labels();
        Point::new(series, &[&uuid, &gpu, &simulated], number)
    }

    /// All labels of an answer; `None` where it has not as many of its own as its series.
    pub fn labels_of(&self, measure: &Measure) -> Option<Arc<[String]>> {
        let own = measure.labels.iter().map(|label| label.clone().into_owned());
        let labels: Arc<[String]> = self.labels().into_iter().chain(own).collect();
        (labels.len() == measure.series.labels.len()).then_some(labels)
    }

    pub fn info(&self) -> Point {
        let [uuid, gpu, simulated] = self.labels();
        let device = self.minor.map(|minor| format!("nvidia{minor}")).unwrap_or_default();
        let numa_node = self.numa_node.map(|node| node.to_string()).unwrap_or_default();
        let labels = [
            &uuid,
            &gpu,
            &simulated,
            &self.name,
            &self.pci_bus_id,
            &device,
            &self.serial,
            &self.vbios,
            &numa_node,
            &self.driver,
        ];
        Point::new(&INFO, &labels.map(String::as_str), 1.0)
    }
}
