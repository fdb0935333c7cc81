//! The configuration: where it comes from, and what it may say.
//!
//! Precedence: `--config FILE`, else [`SYSTEM_FILE`] if it exists, else the built-in defaults; command-line options go
//! over all of them. Unknown fields are errors. What is read is checked while it is read: a [`Config`] in hand is valid.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    time::Duration,
};

use ipnet::IpNet;
use plumbline_audit::VerifierKey;
use serde::Deserialize;
use thiserror::Error;

use crate::{
    cost::PriceBook,
    cuda::CudaConfig,
    engines::config::Engines,
    gpu::GpuConfig,
    incident::IncidentConfig,
    kubelet::{KubeletApi, PodResourcesConfig},
    probes::ProbesConfig,
    record::redact::{Redactor, Rule},
    ship::http::Endpoint,
};

/// Read when no other file is named.
pub const SYSTEM_FILE: &str = "/etc/plumbline/config.yaml";

/// Everything the user may say.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// The node's name in records and in the log's origin; the host name when empty.
    pub node: Option<String>,
    /// Where the log and the node's key are kept.
    pub state_dir: PathBuf,
    /// Where `/metrics` and the status page are served; `null` serves nothing.
    pub listen: Option<SocketAddr>,
    /// A directory of policies; the built-in ones when absent.
    pub policies: Option<PathBuf>,
    pub audit: AuditConfig,
    pub probes: ProbesConfig,
    pub kubelet: KubeletConfig,
    pub dns: DnsConfig,
    pub gpu: GpuConfig,
    pub cuda: CudaConfig,
    pub incident: IncidentConfig,
    pub engines: Engines,
    /// What compute costs; without it nothing is priced.
    pub prices: Option<PriceBook>,
    /// Where metrics and records go by OTLP; nowhere when absent.
    pub otlp: Option<OtlpConfig>,
    /// A file of records, one a line, for a collector that tails files.
    pub jsonl: Option<JsonlConfig>,
    /// Where alerts go by a signed webhook.
    pub webhook: Option<WebhookConfig>,
}

/// How the audit log is kept.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AuditConfig {
    /// A signed checkpoint after so many records, …
    pub checkpoint_records: u64,
    /// … or so many seconds, also when nothing happened.
    pub checkpoint_seconds: u64,
    pub segment_bytes: u64,
    pub mode: AuditMode,
    /// A new epoch key after so many seconds.
    pub epoch_seconds: u64,
    /// Records are kept so long; fewer than 183 days need `retention_override`.
    pub retention_days: u64,
    /// Why records are kept for less than 183 days. It is recorded at each start.
    pub retention_override: Option<String>,
    pub disk: DiskConfig,
    /// Patterns to redact beside the built-in ones.
    pub redact: Vec<Rule>,
    /// Also record every program that begins or ends.
    pub record_processes: bool,
    /// Each published checkpoint is added to this file too.
    pub checkpoint_file: Option<PathBuf>,
    /// Who signs this log's checkpoints elsewhere.
    pub witnesses: Vec<WitnessConfig>,
}

/// A witness of the log's checkpoints (C2SP tlog-witness).
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WitnessConfig {
    /// Such as `http://witness.example:9479`; `/add-checkpoint` is put behind it.
    pub url: Endpoint,
    /// The witness's verifier key, as `plumbline audit keygen --witness` prints it.
    #[serde(deserialize_with = "verifier_key")]
    pub vkey: VerifierKey,
}

fn verifier_key<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<VerifierKey, D::Error> {
    String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
}

/// A file of records, one a line.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JsonlConfig {
    pub path: PathBuf,
    /// A file of this size is followed by a new one.
    #[serde(default = "default_rotate_mib")]
    pub rotate_mib: u64,
    /// Older files that are kept.
    #[serde(default = "default_keep_files")]
    pub keep_files: u32,
}

fn default_rotate_mib() -> u64 {
    100
}

fn default_keep_files() -> u32 {
    5
}

/// A receiver of webhooks (Standard Webhooks).
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WebhookConfig {
    pub url: Endpoint,
    /// A file of mode 600 that holds `whsec_` and the base64 of the shared secret.
    pub secret_file: PathBuf,
    /// Every record, not only alerts.
    #[serde(default)]
    pub all_records: bool,
}

/// When a record becomes durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AuditMode {
    /// Within 50 milliseconds or 64 records; what is severe, at once.
    Durable,
    /// Within a second.
    Balanced,
}

/// Room for the log.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DiskConfig {
    /// Kept free for the last words on a full disk; at most a sixteenth of the file system.
    pub ballast_mib: u64,
    pub low_mib: u64,
    pub critical_mib: u64,
    pub when_critical: WhenCritical,
}

/// What is done while there is little room.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WhenCritical {
    /// Go on until the disk is full.
    Record,
    /// Count events below severity high instead of recording them.
    DropLow,
    /// Prune the oldest segments that every exporter has shipped.
    PruneShipped,
}

impl DiskConfig {
    pub fn ballast_bytes(&self) -> u64 {
        self.ballast_mib << 20
    }

    pub fn low_bytes(&self) -> u64 {
        self.low_mib << 20
    }

    pub fn critical_bytes(&self) -> u64 {
        self.critical_mib << 20
    }
}

impl Default for DiskConfig {
    fn default() -> Self {
        Self { ballast_mib: 64, low_mib: 2048, critical_mib: 512, when_critical: WhenCritical::Record }
    }
}

/// The six months that the EU's AI Act asks for.
pub const LEAST_RETENTION_DAYS: u64 = 183;

/// Where a kubelet tells what pods are called.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct KubeletConfig {
    /// The host's `/var/log`, which has `pods` and `containers`.
    pub log_dir: PathBuf,
    /// The kubelet's own interface, which has labels too. Without it, nobody is asked.
    pub api: Option<KubeletApi>,
    /// Its socket that tells which container has which GPU; `null` asks nobody.
    pub pod_resources: Option<PodResourcesConfig>,
}

impl Default for KubeletConfig {
    fn default() -> Self {
        Self { log_dir: PathBuf::from("/var/log"), api: None, pod_resources: Some(PodResourcesConfig::default()) }
    }
}

/// Whose answers give addresses their names.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DnsConfig {
    /// The name servers that count, for all processes: addresses, or networks. Without it each process's own
    /// `/etc/resolv.conf` says which.
    #[serde(deserialize_with = "networks")]
    pub resolvers: Option<Vec<IpNet>>,
}

fn networks<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<Vec<IpNet>>, D::Error> {
    let Some(given) = Option::<Vec<String>>::deserialize(deserializer)? else { return Ok(None) };
    let network = |text: String| {
        let address = text.parse::<IpAddr>().map(|address| IpNet::from(address.to_canonical()));
        address.or_else(|_| text.parse()).map_err(|_| {
            serde::de::Error::custom(format!(
                "`{text}` is no address and no network; write `10.96.0.10` or `10.96.0.0/16`"
            ))
        })
    };
    given.into_iter().map(network).collect::<Result<_, _>>().map(Some)
}

/// An OTLP receiver, HTTP with protobuf.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OtlpConfig {
    /// Such as `http://127.0.0.1:4318`; `/v1/metrics` and `/v1/logs` are put behind it.
    pub endpoint: Endpoint,
    #[serde(default = "default_otlp_seconds")]
    pub interval_seconds: u64,
}

fn default_otlp_seconds() -> u64 {
    15
}

/// Beside the port of the Prometheus agents and not one of a well-known exporter.
const DEFAULT_LISTEN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9477);

impl Default for Config {
    fn default() -> Self {
        Self {
            node: None,
            state_dir: PathBuf::from("/var/lib/plumbline"),
            listen: Some(DEFAULT_LISTEN),
            policies: None,
            audit: AuditConfig::default(),
            probes: ProbesConfig::default(),
            kubelet: KubeletConfig::default(),
            dns: DnsConfig::default(),
            gpu: GpuConfig::default(),
            cuda: CudaConfig::default(),
            incident: IncidentConfig::default(),
            engines: Engines::default(),
            prices: None,
            otlp: None,
            jsonl: None,
            webhook: None,
        }
    }
}

impl Default for AuditConfig {
    fn default() -> Self {
        Self {
            checkpoint_records: 1024,
            checkpoint_seconds: 10,
            segment_bytes: 64 << 20,
            mode: AuditMode::Durable,
            epoch_seconds: 15 * 60,
            retention_days: LEAST_RETENTION_DAYS,
            retention_override: None,
            disk: DiskConfig::default(),
            redact: Vec::new(),
            record_processes: false,
            checkpoint_file: None,
            witnesses: Vec::new(),
        }
    }
}

impl AuditConfig {
    pub fn checkpoint_every(&self) -> Duration {
        Duration::from_secs(self.checkpoint_seconds.max(1))
    }

    pub fn epoch_every(&self) -> Duration {
        Duration::from_secs(self.epoch_seconds.max(1))
    }

    /// After how many records, and how long, a commit is due.
    pub fn commit_every(&self) -> (u64, Duration) {
        match self.mode {
            AuditMode::Durable => (64, Duration::from_millis(50)),
            AuditMode::Balanced => (4096, Duration::from_secs(1)),
        }
    }

    /// What no single field can say of itself.
    fn check(&self) -> Result<(), String> {
        let reason = self.retention_override.as_ref().is_some_and(|reason| !reason.trim().is_empty());
        if self.retention_days < LEAST_RETENTION_DAYS && !reason {
            return Err(format!(
                "audit.retention_days: {} is less than {LEAST_RETENTION_DAYS}; expected at least that, or the reason in \
                 audit.retention_override, which is recorded at each start",
                self.retention_days
            ));
        }
        Redactor::new(&self.redact).map_err(|error| format!("audit.redact: expected a pattern: {error}")).map(drop)
    }
}

/// Why there is no configuration.
#[derive(Debug, Error)]
pub enum ConfigError {
    #[error("cannot read the configuration {}", path.display())]
    Read { path: PathBuf, source: std::io::Error },
    /// The message holds the place and the lines around it.
    #[error("the configuration {} is not valid\n{message}", path.display())]
    Invalid { path: PathBuf, message: String },
}

/// Where a configuration came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    BuiltIn,
    File(PathBuf),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BuiltIn => f.write_str("built-in defaults"),
            Self::File(path) => path.display().fmt(f),
        }
    }
}

impl Config {
    /// Reads the configuration that holds here.
    pub fn load(file: Option<&Path>) -> Result<(Self, Origin), ConfigError> {
        let path = match file {
            Some(path) => path.to_owned(),
            None if Path::new(SYSTEM_FILE).exists() => PathBuf::from(SYSTEM_FILE),
            None => return Ok((Self::default(), Origin::BuiltIn)),
        };
        let text = std::fs::read_to_string(&path).map_err(|source| ConfigError::Read { path: path.clone(), source })?;
        let config = Self::parse(&text).map_err(|message| ConfigError::Invalid { path: path.clone(), message })?;
        Ok((config, Origin::File(path)))
    }

    /// Reads one document; an empty one is the defaults.
    fn parse(text: &str) -> Result<Self, String> {
        if text.lines().all(|line| line.trim().is_empty() || line.trim_start().starts_with('#')) {
            return Ok(Self::default());
        }
        let config: Self = serde_yaml::from_str(text).map_err(|error| error.to_string())?;
        config.audit.check()?;
        Ok(config)
    }

    pub fn log_dir(&self) -> PathBuf {
        self.state_dir.join("log")
    }

    /// Where exporters of records keep what was acknowledged.
    pub fn cursor_dir(&self) -> PathBuf {
        self.state_dir.join("cursor")
    }

    pub fn key_file(&self) -> PathBuf {
        self.state_dir.join("node.key")
    }

    /// The public half, which the reviewer gets.
    pub fn vkey_file(&self) -> PathBuf {
        self.state_dir.join("node.vkey")
    }
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::*;

    #[expect(clippy::needless_pass_by_value, reason = "reads better in the tests")]
    fn refused(text: &str, expect: Expect) {
        expect.assert_eq(&Config::parse(text).unwrap_err());
    }

    #[test]
    fn nothing_said_is_the_defaults() {
        let config = Config::parse("# nothing\n\n").unwrap();
        assert_eq!(config.listen, Some(DEFAULT_LISTEN));
        assert_eq!(config.audit.checkpoint_seconds, 10);
    }

    #[test]
    fn what_is_said_holds_and_the_rest_is_default() {
        let config = Config::parse("listen: 127.0.0.1:1\nprices: {currency: EUR, node_per_hour: 1}\n").unwrap();
        assert_eq!(config.listen.map(|listen| listen.port()), Some(1));
        assert_eq!(config.prices.unwrap().node_per_hour.unwrap().as_f64().to_bits(), 1f64.to_bits());
        assert!(config.gpu.enabled);
    }

    #[test]
    fn mistakes_show_their_place() {
        refused(
            "audit:\n  checkpoint_recs: 5\n",
            expect![[r#"
            error: line 2 column 3: unknown field `checkpoint_recs`, expected one of checkpoint_records, checkpoint_seconds, segment_bytes, mode, epoch_seconds, retention_days, retention_override, disk, redact, record_processes, checkpoint_file, witnesses
             --> <input>:2:3
              |
            1 | audit:
            2 |   checkpoint_recs: 5
              |   ^ unknown field `checkpoint_recs`, expected one of checkpoint_records, checkpoint_seconds, segment_bytes, mode, epoch_seconds, retention_days, retention_override, disk, redact, record_processes, checkpoint_file, witnesses"#]],
        );
        refused(
            "listen: everywhere\n",
            expect![[r#"
            error: line 1 column 9: invalid socket address syntax
             --> <input>:1:9
              |
            1 | listen: everywhere
              |         ^ invalid socket address syntax"#]],
        );
        refused(
            "probes:\n  ring_bytes: big\n",
            expect![[r#"
            error: line 2 column 15: invalid u32
             --> <input>:2:15
              |
            1 | probes:
            2 |   ring_bytes: big
              |               ^ invalid u32"#]],
        );
    }

    #[test]
    fn a_short_retention_needs_its_reason_and_a_pattern_must_be_one() {
        refused(
            "audit: {retention_days: 30}",
            expect![
                "audit.retention_days: 30 is less than 183; expected at least that, or the reason in audit.retention_override, which is recorded at each start"
            ],
        );
        assert!(Config::parse("audit: {retention_days: 30, retention_override: test node}").is_ok());
        assert!(
            Config::parse("audit: {redact: [{name: x, pattern: \"(\"}]}").unwrap_err().contains("expected a pattern")
        );
    }

    /// Example number `number` of a page.
    fn example(page: &str, number: usize) -> Config {
        let example = page.split("```yaml\n").nth(number).and_then(|rest| rest.split("```").next()).unwrap();
        Config::parse(example).unwrap()
    }

    #[test]
    fn the_examples_in_the_guides_are_valid() {
        let config = example(include_str!("../../docs/audit.md"), 1);
        assert_eq!(config.audit.witnesses[0].vkey.name(), "witness.example/w1");
        assert_eq!(config.webhook.unwrap().secret_file, Path::new("/etc/plumbline/webhook.secret"));
        let page = include_str!("../../docs/kubernetes.md");
        assert_eq!(example(page, 1).kubelet.log_dir, Path::new("/host/var/log"));
        let api = example(page, 2).kubelet.api.unwrap();
        assert_eq!((&*api.host, api.port, &*api.server_name.to_str()), ("127.0.0.1", 10250, "node-7"));
    }
}
