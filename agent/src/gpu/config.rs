//! What may be said of GPUs in the configuration.

use std::{path::PathBuf, time::Duration};

use serde::Deserialize;

use super::wire::Rhythm;

/// How GPUs are read.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct GpuConfig {
    pub enabled: bool,
    /// The NVML library, when it is not where the dynamic linker looks.
    pub library: Option<PathBuf>,
    /// Where the kernel's log is read, which says whose XIDs are.
    pub kernel_log: PathBuf,
    /// Also told by the names of dcgm-exporter, so that dashboards that were written for it go on.
    pub dcgm_names: bool,
    /// How often what changes fast is asked.
    pub interval_seconds: u64,
    /// How often all else is.
    pub full_interval_seconds: u64,
    /// How often what changes fast is asked in an incident.
    pub incident_interval_milliseconds: u64,
    /// How soon NVML is opened again where there was none, or a GPU is lost.
    pub reopen_seconds: u64,
}

impl Default for GpuConfig {
    fn default() -> Self {
        Self {
            enabled: true,
            library: None,
            kernel_log: PathBuf::from("/dev/kmsg"),
            dcgm_names: true,
            interval_seconds: 1,
            full_interval_seconds: 5,
            incident_interval_milliseconds: 250,
            reopen_seconds: 60,
        }
    }
}

impl GpuConfig {
    pub fn steady(&self) -> Rhythm {
        let light_ms = self.interval_seconds.max(1) * 1000;
        Rhythm { light_ms, full_ms: (self.full_interval_seconds * 1000).max(light_ms) }
    }

    /// One that is lost and stays so costs the others a restart each time, so that the pause grows.
    pub fn reopen(&self) -> Duration {
        Duration::from_secs(self.reopen_seconds.clamp(1, 16 * 60))
    }

    /// Never slower than the steady one, and not faster than the driver's own sampling.
    pub fn incident(&self) -> Rhythm {
        let steady = self.steady();
        Rhythm { light_ms: self.incident_interval_milliseconds.max(100).min(steady.light_ms), ..steady }
    }
}
