//! What `plumbline gpu` shows.

use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use super::{fleet::GpuView, xids::XidCount};

/// What `plumbline gpu` shows.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct View {
    /// `running`, `absent`, `released`, `stuck` or `off`.
    pub worker: String,
    pub worker_pid: Option<u32>,
    /// Why nobody is asked.
    pub reason: Option<String>,
    pub driver: Option<String>,
    /// `steady` or `incident`.
    pub profile: String,
    /// GPUs that the driver lists, and that do not say who they are, or have not yet.
    pub unnamed: u32,
    pub gpus: Vec<GpuView>,
    pub xids: Vec<XidCount>,
    /// Why the kernel's log is not read, which alone says whose XIDs are.
    pub no_kernel_log: Option<String>,
    /// Why NVML does not tell XIDs, of the last GPU that refused.
    pub no_events: Option<String>,
    /// Workers that were killed and that the driver does not let end.
    pub stuck_pids: Vec<u32>,
}

impl View {
    /// Where the configuration has no GPUs read.
    pub fn off() -> watch::Receiver<Self> {
        let reason = Some("switched off by the configuration".to_owned());
        watch::channel(Self { worker: "off".to_owned(), reason, ..Self::default() }).1
    }
}
