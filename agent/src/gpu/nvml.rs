//! Opening NVML, and what it says of the node as a whole: driver, GPUs, and whether it is the test bench's fake.
//!
//! Exactly one thread has a [`Session`] open at a time; see `gpu`.

use std::{
    collections::BTreeMap,
    env,
    path::{Path, PathBuf},
};

use nvml_wrapper::{Nvml, error::NvmlError};
use thiserror::Error;

use super::{
    raw,
    sample::{Entity, Reading},
};
use crate::{
    config::GpuConfig,
    series::{Point, gpu},
};

/// Names the library where the configuration does not.
const LIBRARY_VARIABLE: &str = "PLUMBLINE_NVML";

/// What the dynamic linker looks for; drivers since 560 have no unversioned name.
const LIBRARY: &str = "libnvidia-ml.so.1";

/// Why NVML does not answer.
#[derive(Debug, Error)]
pub enum NvmlUnavailable {
    /// The dynamic linker's own words, which name the library.
    #[error("NVML cannot be loaded: {0}")]
    Load(String),
    #[error("NVML of {} does not start", path.display())]
    Init { path: PathBuf, source: NvmlError },
    #[error("NVML does not say how many GPUs there are")]
    Count(#[source] NvmlError),
    #[error("the driver lists no GPU")]
    NoGpu,
}

/// An open NVML.
#[derive(Debug)]
pub struct Session {
    nvml: Nvml,
    pub driver: String,
    pub is_simulated: bool,
    /// By index. An index means the same GPU for as long as NVML is open.
    identities: BTreeMap<u32, Identity>,
}

/// What a GPU is, as opposed to how it does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    pub entity: Entity,
    pub index: u32,
    pub name: String,
    pub pci_bus_id: String,
    pub driver: String,
}

/// Where NVML is looked for.
pub fn library(config: &GpuConfig) -> PathBuf {
    let named = || env::var_os(LIBRARY_VARIABLE).filter(|name| !name.is_empty()).map(PathBuf::from);
    config.library.clone().or_else(named).unwrap_or_else(|| PathBuf::from(LIBRARY))
}

impl Session {
    pub fn open(library: &Path) -> Result<Self, NvmlUnavailable> {
        let nvml = Nvml::builder().lib_path(library.as_os_str()).init().map_err(|error| match error {
            NvmlError::LibloadingError(error) => NvmlUnavailable::Load(error.to_string()),
            source => NvmlUnavailable::Init { path: library.to_owned(), source },
        })?;
        let is_simulated = raw::is_simulated(&nvml);
        let driver = nvml.sys_driver_version().unwrap_or_default();
        Ok(Self { nvml, driver, is_simulated, identities: BTreeMap::new() })
    }

    /// Every GPU that answers who it is, with all else that it answers.
    pub fn read(&mut self) -> Result<Vec<(Identity, Reading)>, NvmlUnavailable> {
        let count = self.nvml.device_count().map_err(NvmlUnavailable::Count)?;
        let mut readings = Vec::new();
        for index in 0..count {
            let Ok(device) = self.nvml.device_by_index(index) else { continue };
            let identity = match self.identities.get(&index) {
                Some(identity) => identity.clone(),
                None => match self.identify(&device, index) {
                    Ok(identity) => identity,
                    Err(error) => {
                        tracing::warn!(index, %error, "a gpu does not say who it is");
                        continue;
                    }
                },
            };
            let reading = Reading::take(&device);
            self.identities.insert(index, identity.clone());
            readings.push((identity, reading));
        }
        Ok(readings)
    }

    fn identify(&self, device: &nvml_wrapper::Device<'_>, index: u32) -> Result<Identity, NvmlError> {
        Ok(Identity {
            entity: Entity { uuid: device.uuid()?, is_simulated: self.is_simulated },
            index,
            name: device.name().unwrap_or_default(),
            pci_bus_id: device.pci_info().map(|pci| pci.bus_id).unwrap_or_default(),
            driver: self.driver.clone(),
        })
    }
}

impl Identity {
    pub fn points(&self, is_up: bool) -> [Point; 2] {
        let (uuid, simulated) = (self.entity.uuid.as_str(), self.entity.simulated());
        let index = self.index.to_string();
        let labels = [uuid, simulated, &index, &self.name, &self.pci_bus_id, &self.driver];
        [Point::new(&gpu::INFO, &labels, 1.0), Point::new(&gpu::UP, &[uuid, simulated], if is_up { 1.0 } else { 0.0 })]
    }
}
