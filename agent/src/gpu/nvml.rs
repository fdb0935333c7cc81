//! Opening NVML, and what it says of the node as a whole: driver, GPUs, and whether it is the test bench's fake.

use std::{
    env,
    path::{Path, PathBuf},
};

use nvml_wrapper::{Nvml, error::NvmlError};
use thiserror::Error;

use super::{config::GpuConfig, driver::FieldNumbers, raw};

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

/// An open NVML. It is never closed: the process ends instead, which also closes what a stuck getter holds.
#[derive(Debug, Clone)]
pub struct Session {
    pub nvml: &'static Nvml,
    pub driver: String,
    pub numbers: FieldNumbers,
    pub is_simulated: bool,
    pub count: u32,
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
        // For good: threads ask until the process ends.
        let nvml: &'static Nvml = Box::leak(Box::new(nvml));
        let is_simulated = raw::is_simulated(nvml);
        let driver = nvml.sys_driver_version().unwrap_or_default();
        let numbers = FieldNumbers::of(&driver);
        let count = nvml.device_count().map_err(NvmlUnavailable::Count)?;
        if count == 0 {
            return Err(NvmlUnavailable::NoGpu);
        }
        Ok(Self { nvml, driver, numbers, is_simulated, count })
    }
}
