//! The `cuda` part of the configuration.

use serde::Deserialize;

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CudaConfig {
    pub detail: Detail,
}

/// How much is looked at. A probe costs the thread that calls about a microsecond, whatever it does.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Detail {
    Off,
    /// All but launches of single kernels, of which an engine makes tens of thousands in a second.
    #[default]
    Sync,
    Full,
}
