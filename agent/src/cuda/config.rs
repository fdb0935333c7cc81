//! The `cuda` part of the configuration.

use std::path::PathBuf;

use serde::{Deserialize, Serialize, de::Error as _};

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CudaConfig {
    pub detail: Detail,
    /// What the probes may cost a process, of its CPU time.
    #[serde(deserialize_with = "percent")]
    pub budget_percent: f64,
    /// Files in which NCCL's log ends up, as the host sees them, with `*` in their names.
    #[serde(deserialize_with = "patterns")]
    pub nccl_logs: Vec<String>,
    /// Files that NCCL Inspector writes for a node exporter, with `*` in their names.
    #[serde(deserialize_with = "patterns")]
    pub nccl_inspector: Vec<String>,
    /// A directory of journald's files in which it ends up, such as /var/log/journal.
    #[serde(deserialize_with = "directory")]
    pub nccl_journal: Option<PathBuf>,
    /// Ask NCCL's own RAS, once a minute.
    pub nccl_ras: bool,
}

impl Default for CudaConfig {
    fn default() -> Self {
        Self {
            detail: Detail::default(),
            budget_percent: 0.5,
            nccl_logs: Vec::new(),
            nccl_inspector: Vec::new(),
            nccl_journal: None,
            nccl_ras: false,
        }
    }
}

impl CudaConfig {
    /// Whether something is read beside what processes call.
    pub fn reads_others(&self) -> bool {
        self.nccl_ras || self.nccl_journal.is_some() || !self.nccl_logs.is_empty() || !self.nccl_inspector.is_empty()
    }

    /// All of it is no limit: what is reckoned may be more.
    pub fn budget_share(&self) -> f64 {
        if self.budget_percent < 100.0 { self.budget_percent / 100.0 } else { f64::INFINITY }
    }
}

fn percent<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
    let percent = f64::deserialize(deserializer)?;
    if percent > 0.0 && percent <= 100.0 {
        return Ok(percent);
    }
    Err(D::Error::custom(format!("{percent} is no share of a CPU; expected more than 0 and at most 100, such as 0.5")))
}

fn directory<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<PathBuf>, D::Error> {
    let directory = Option::<PathBuf>::deserialize(deserializer)?;
    match &directory {
        Some(relative) if !relative.is_absolute() => {
            let wanted = "expected the whole path, such as /var/log/journal";
            Err(D::Error::custom(format!("`{}` is no absolute path; {wanted}", relative.display())))
        }
        _ => Ok(directory),
    }
}

fn patterns<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    let patterns = Vec::<String>::deserialize(deserializer)?;
    for pattern in &patterns {
        if !pattern.starts_with('/') {
            let wanted = "expected the whole path, such as /var/log/pods/*/*/*.log";
            return Err(D::Error::custom(format!("`{pattern}` is no absolute path; {wanted}")));
        }
        glob::Pattern::new(pattern).map_err(|error| D::Error::custom(format!("`{pattern}`: {error}")))?;
    }
    Ok(patterns)
}

/// How much is looked at. A probe costs the thread that calls about a microsecond, whatever it does.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum Detail {
    /// Nothing
    Off,
    /// All but launches of single kernels, of which an engine makes tens of thousands in a second
    #[default]
    Sync,
    /// Launches too
    Full,
}

impl Detail {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Sync => "sync",
            Self::Full => "full",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expect: Result<CudaConfig, &str>) {
        let read = serde_yaml::from_str::<CudaConfig>(text).map_err(|error| error.to_string());
        match (read, expect) {
            (Err(error), Err(part)) => assert!(error.contains(part), "{error}"),
            (read, expect) => assert_eq!(read, expect.map_err(str::to_owned)),
        }
    }

    #[test]
    fn a_budget_is_a_share() {
        check("{}", Ok(CudaConfig::default()));
        check(
            "{detail: full, budget_percent: 2}",
            Ok(CudaConfig { detail: Detail::Full, budget_percent: 2.0, ..CudaConfig::default() }),
        );
        for wrong in ["0", "-1", "100.5", ".nan"] {
            check(&format!("budget_percent: {wrong}"), Err("expected more than 0 and at most 100, such as 0.5"));
        }
        check("{detail: most}", Err("expected one of off, sync, full"));
    }

    #[test]
    fn a_log_is_named_by_its_whole_path() {
        let nccl_logs = vec!["/var/log/pods/*/*/*.log".to_owned()];
        check("nccl_logs: [/var/log/pods/*/*/*.log]", Ok(CudaConfig { nccl_logs, ..CudaConfig::default() }));
        check("nccl_logs: [nccl.log]", Err("`nccl.log` is no absolute path; expected the whole path"));
        check("nccl_logs: [/var/log/***]", Err("`/var/log/***`: "));
        check(
            "nccl_journal: journal",
            Err("`journal` is no absolute path; expected the whole path, such as /var/log/journal"),
        );
        check("nccl_logs: /var/log/nccl.log", Err("expected sequence start"));
    }
}
