//! Event + identity + verdict → the one canonical form: an OCSF 1.8.0 event that the log seals.
//!
//! One file per class of events and one line in [`body`] per kind; a kind without a mapping does not compile. Everything
//! here is pure: the wall clock comes with the data. Fields that OCSF has no place for stand in `unmapped.plumbline`.

mod actor;
mod device_config;
mod file_activity;
mod finding;
mod kernel_activity;
mod lifecycle;
mod log_activity;
mod module_activity;
mod names;
mod network_activity;
mod process_activity;
pub mod redact;
pub mod text;

use std::sync::Arc;

use plumbline_audit::record::{Draft, DraftError, MAX_RECORD_BYTES};
use plumbline_policy::{Matched, Severity};
use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};

use self::redact::Redactor;
use crate::{
    clock,
    event::{Event, What},
    identity::Identity,
    verdict::{Denial, Found, Judgement, Killed},
};

/// The version of the schema that every record follows.
pub const OCSF_VERSION: &str = "1.8.0";

/// OCSF `severity_id`: 1 Informational.
const INFORMATIONAL: u64 = 1;
/// OCSF `disposition_id` of the profile `security_control`: 17 Logged, 19 Alert.
const LOGGED: u64 = 17;
const ALERT: u64 = 19;
/// 2 Blocked.
const BLOCKED: u64 = 2;
/// OCSF `action_id` of the same profile: 2 Denied.
const DENIED: u64 = 2;
/// OCSF `status_id`: 2 Failure.
const FAILURE: u64 = 2;
/// 7 Custom Action: the process was ended.
const CUSTOM_ACTION: u64 = 7;
/// OCSF `device.type_id`: 1 Server.
const SERVER: u64 = 1;

/// Room is left for the chain fields that sealing adds.
const MAX_UNSEALED_BYTES: usize = MAX_RECORD_BYTES - 2048;

/// What is the same in every record of this run.
#[derive(Debug, Clone)]
pub struct Recorder {
    pub hostname: String,
    /// `/proc/sys/kernel/random/boot_id`.
    pub boot_id: String,
    /// SHA-256 of the running executable, hexadecimal, or why it is not known.
    pub build: String,
    pub redactor: Arc<Redactor>,
    /// Whether programs that begin and end are recorded too, not only known.
    pub processes: bool,
}

/// The clocks and the policies at the moment of recording.
#[derive(Debug, Clone, Copy)]
pub struct Moment<'a> {
    /// Wall clock minus CLOCK_BOOTTIME, nanoseconds: turns an event's kernel time into wall time.
    pub unix_minus_boot_ns: i128,
    /// `synchronised`, `unsynchronised` or `unknown` (adjtimex(2)).
    pub clock_sync: &'static str,
    pub policy_digest: &'a str,
    pub policy_generation: u64,
}

impl<'a> Moment<'a> {
    /// The clocks as they are now.
    pub fn now(policy_digest: &'a str, policy_generation: u64, clock_sync: &'static str) -> Self {
        let unix_minus_boot_ns = i128::from(clock::unix_ns()) - i128::from(clock::boot_ns());
        Self { unix_minus_boot_ns, clock_sync, policy_digest, policy_generation }
    }
}

/// What one kind of event says in its own class.
#[derive(Debug)]
struct Body {
    class_uid: u64,
    activity_id: u64,
    activity_name: &'static str,
    /// Where no policy says otherwise.
    severity_id: u64,
    message: String,
    keep: Keep,
    /// Attributes of the class.
    fields: Map<String, Value>,
    /// What goes into `unmapped.plumbline`.
    own: Map<String, Value>,
}

/// When an event becomes a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Keep {
    /// It is evidence in itself.
    Always,
    /// When a policy's rule speaks of it.
    IfMatched,
    /// When the configuration asks for it.
    IfAsked,
}

/// A record to be, and whether it should not wait for others to become durable.
#[derive(Debug)]
pub struct Drafted {
    pub draft: Draft,
    pub severity_id: u64,
}

/// The mapping of every kind of event; `None` for what only feeds identity.
fn body(event: &Event, who: &str, identity: Option<&Identity>, exact: &mut Map<String, Value>) -> Option<Body> {
    Some(match &event.what {
        What::FileOpen(open) => file_activity::open(open, who, identity, exact),
        What::FileRead(read) => file_activity::read(read, who, identity, exact),
        What::FileChange(change) => file_activity::change(change, who, identity, exact),
        What::DeviceOpen(open) => file_activity::device_open(open, who, exact),
        What::MemoryAccess(access) => process_activity::memory(access, who),
        What::BpfAccess(access) => kernel_activity::bpf(access, who),
        What::Connect(connect) => network_activity::connect(connect, who, identity),
        What::ConnectEnd(end) => network_activity::end(end, who, identity),
        What::SocketOpen(socket) => network_activity::socket(*socket, who),
        What::Exec(exec) => process_activity::exec(exec, event.task.as_ref(), who, identity),
        What::LocalConnect(connect) => network_activity::local(connect, who, identity)?,
        What::Fork(_) | What::Dns(_) => return None,
        What::Exit(exit) => process_activity::exit(*exit, event.task.as_ref(), who),
        What::Loss(loss) => log_activity::loss(loss),
        What::Gap(gap) => log_activity::gap(gap),
        What::Start(start) => lifecycle::start(start),
        What::Stop(stop) => lifecycle::stop(stop),
        What::Hook(hook) => module_activity::body(hook),
        What::Coverage(statement) => device_config::coverage(statement),
        What::Policies(policies) => device_config::policies(policies),
        What::Disk(disk) => log_activity::disk(disk),
        What::ClockStep(step) => log_activity::clock_step(*step),
        What::Finding(found) => finding::body(found, identity),
        What::Log(statement) => log_activity::statement(statement),
    })
}

impl Recorder {
    /// The draft of the record, or `None` for events that are not recorded.
    pub fn draft(
        &self,
        event: &Event,
        identity: Option<&Identity>,
        judgement: Option<&Judgement>,
        moment: &Moment<'_>,
    ) -> Option<Result<Drafted, DraftError>> {
        let record = self.event(event, identity, judgement, moment)?;
        let severity_id = record.get("severity_id").and_then(Value::as_u64).unwrap_or(INFORMATIONAL);
        Some(Draft::new(record).map(|draft| Drafted { draft, severity_id }))
    }

    /// The event without its place in the log, redacted and of a length that fits.
    pub fn event(
        &self,
        event: &Event,
        identity: Option<&Identity>,
        judgement: Option<&Judgement>,
        moment: &Moment<'_>,
    ) -> Option<Map<String, Value>> {
        let mut exact = Map::new();
        let who = event
            .task
            .as_ref()
            .map_or_else(String::new, |task| format!("{} (pid {})", text::shown(&task.comm), task.pid));
        let body = body(event, &who, identity, &mut exact)?;
        let is_kept = match body.keep {
            Keep::Always => true,
            Keep::IfMatched => judgement.is_some_and(|one| !one.verdict.is_none()),
            Keep::IfAsked => self.processes || judgement.is_some_and(|one| !one.verdict.is_none()),
        };
        is_kept.then(|| self.around(body, event, identity, judgement, moment, exact))
    }

    /// What every record says, around what its class says.
    fn around(
        &self,
        body: Body,
        event: &Event,
        identity: Option<&Identity>,
        judgement: Option<&Judgement>,
        moment: &Moment<'_>,
        exact: Map<String, Value>,
    ) -> Map<String, Value> {
        let unix_ns = i128::from(event.boot_ns) + moment.unix_minus_boot_ns;
        let matched = judgement.and_then(Judgement::chief);
        let is_repeated = judgement.is_some_and(|one| one.is_repeated);
        let mut profiles = vec!["host", "security_control"];
        if event.task.is_some() && actor::has_container(identity) {
            profiles.push("container");
        }
        let mut own = Map::new();
        own.insert("kind".into(), event.what.kind().into());
        own.insert("unix_ns".into(), u64::try_from(unix_ns).unwrap_or(0).into());
        own.insert("boot_ns".into(), event.boot_ns.into());
        own.insert("clock_sync".into(), moment.clock_sync.into());
        own.insert("build".into(), self.build.clone().into());
        own.insert("policy".into(), json!({ "digest": moment.policy_digest, "generation": moment.policy_generation }));
        if let Some(origin) = event.origin {
            let name = plumbline_ebpf::program::NAMES.get(origin.program as usize).copied().unwrap_or("unknown");
            own.insert("program".into(), json!({ "name": name, "cpu": origin.cpu, "sequence": origin.sequence }));
            own.insert("kernel_generation".into(), origin.generation.into());
        }
        if let Some(task) = &event.task {
            own.insert(
                "namespaces".into(),
                json!({ "mnt": task.namespaces.mnt, "net": task.namespaces.net, "pid": task.namespaces.pid }),
            );
            own.insert("cgroup_id".into(), task.cgroup_id.into());
        }
        if let Some(process) = identity.map(|identity| &identity.process) {
            if let Some(loginuid) = process.loginuid {
                own.insert("loginuid".into(), loginuid.into());
            }
            if process.exe.is_some() && process.exe_whose.is_none() {
                // No policy rests on it.
                own.insert("exe_name".into(), "unproven".into());
            }
            if process.exe_deleted {
                let memfd = process.exe.as_ref().is_some_and(|exe| exe.starts_with(b"/memfd:"));
                own.insert("exe_state".into(), if memfd { "memfd" } else { "deleted" }.into());
            }
        }
        if let Some(cgroup) = identity.and_then(|identity| identity.process.cgroup.as_ref()) {
            own.insert("cgroup".into(), text::shown(&cgroup.path).into());
        }
        if let Some(identity) = identity {
            own.extend(actor::more(identity));
        }
        if let Some(pod) = identity.and_then(|identity| identity.pod.as_ref()) {
            let mut named = json!({ "namespace": pod.namespace, "name": pod.name });
            if !pod.labels.is_empty() {
                let labels = pod.labels.iter().map(|(name, value)| (name.clone(), Value::from(value.clone())));
                named["labels"] = Value::Object(labels.collect());
            }
            own.insert("pod".into(), named);
        }
        if let Some(judgement) = judgement {
            own.extend(said(judgement));
        }
        own.extend(body.own);
        if let (Some(judgement), Some(Value::Array(read))) = (judgement, own.get_mut("has_read")) {
            for (half, below) in read.iter_mut().zip(&judgement.read_below) {
                half["watched"] = below.as_deref().map(text::shown).into();
            }
        }
        own.extend(exact);

        let mut record = Map::new();
        record.insert("class_uid".into(), body.class_uid.into());
        record.insert("category_uid".into(), (body.class_uid / 1000).into());
        record.insert("activity_id".into(), body.activity_id.into());
        record.insert("activity_name".into(), body.activity_name.into());
        record.insert("type_uid".into(), (body.class_uid * 100 + body.activity_id).into());
        let severity = matched.filter(|_| !is_repeated).map_or(body.severity_id, |one| severity_id(one.severity));
        record.insert("severity_id".into(), severity.into());
        record.insert("time".into(), u64::try_from(unix_ns / 1_000_000).unwrap_or(0).into());
        let message = matched.filter(|_| !is_repeated).map_or(body.message, |one| one.message.clone());
        record.insert("message".into(), message.into());
        record.insert(
            "metadata".into(),
            json!({
                "version": OCSF_VERSION,
                "product": { "name": "Plumbline", "vendor_name": "Plumbline", "version": env!("CARGO_PKG_VERSION") },
                "profiles": profiles,
            }),
        );
        record
            .insert("device".into(), json!({ "type_id": SERVER, "hostname": self.hostname, "boot_uid": self.boot_id }));
        if let Some(task) = &event.task {
            let mut exact = Map::new();
            record.insert("actor".into(), actor::actor(task, identity, &mut exact));
            own.extend(exact);
        }
        let alert = judgement.is_some_and(Judgement::is_alert);
        let is_killed = judgement.is_some_and(|one| one.killed == Some(Killed::Sent));
        let is_denied = judgement.and_then(|one| one.denial.as_ref()).is_some_and(Denial::is_denied);
        let disposition = if is_denied {
            BLOCKED
        } else if is_killed {
            CUSTOM_ACTION
        } else if alert {
            ALERT
        } else {
            LOGGED
        };
        record.insert("disposition_id".into(), disposition.into());
        if is_denied {
            record.insert("action_id".into(), DENIED.into());
            record.insert("status_id".into(), FAILURE.into());
        }
        if let Some(matched) = matched {
            record.insert("is_alert".into(), alert.into());
            record.insert(
                "policy".into(),
                json!({ "name": &*matched.policy, "uid": &*matched.rule, "version": moment.policy_digest }),
            );
        }
        record.extend(body.fields);
        record.insert("unmapped".into(), json!({ "plumbline": own }));
        let struck = self.redactor.redact(&mut record);
        if !struck.is_empty()
            && let Some(own) = record.get_mut("unmapped").and_then(|unmapped| unmapped.get_mut("plumbline"))
        {
            own["redacted"] = struck.into();
        }
        fit(record)
    }
}

/// Leaves out, in this order, what a too long record can do without, says so and gives the hash of the whole. A process names itself, its files and
/// its ancestors: names of 4 KiB each must not keep a record from being written.
fn fit(mut record: Map<String, Value>) -> Map<String, Value> {
    let bytes = |record: &Map<String, Value>| serde_json::to_vec(record).unwrap_or_default();
    let whole = bytes(&record);
    if whole.len() <= MAX_UNSEALED_BYTES {
        return record;
    }
    let digest: String = Sha256::digest(&whole).iter().map(|byte| format!("{byte:02x}")).collect();
    for part in ["/actor/process/ancestry", "/actor/process/parent_process", "/enrichments", "/message"] {
        if bytes(&record).len() <= MAX_UNSEALED_BYTES {
            break;
        }
        let (object, name) = part.rsplit_once('/').unwrap_or(("", part));
        let mut at = Some(&mut record);
        for step in object.split('/').skip(1) {
            at = at.and_then(|object| object.get_mut(step)).and_then(Value::as_object_mut);
        }
        if let Some(object) = at {
            object.remove(name);
        }
    }
    if let Some(metadata) = record.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.insert("is_truncated".into(), true.into());
        metadata.insert("untruncated_size".into(), whole.len().into());
    }
    if let Some(own) = record.get_mut("unmapped").and_then(|unmapped| unmapped.get_mut("plumbline")) {
        own["untruncated_sha256"] = digest.into();
    }
    record
}

/// What the policies said, and whether somebody was told.
fn said(judgement: &Judgement) -> Map<String, Value> {
    let mut own = Map::new();
    if let Some(watched) = &judgement.watched {
        own.insert("watched".into(), text::shown(watched).into());
    }
    let rule = |one: &Matched| {
        json!({
            "policy": &*one.policy,
            "rule": &*one.rule,
            "effect": one.effect.as_str(),
            "severity": one.severity.as_str(),
            "mode": one.mode.as_str(),
        })
    };
    let rules: Vec<Value> = judgement.verdict.matched().iter().map(rule).collect();
    if !rules.is_empty() {
        own.insert("matched".into(), rules.into());
    }
    if let Some(Found { kind, severity, entity, text }) = &judgement.finding {
        let severity = severity.as_str();
        own.insert("finding".into(), json!({ "kind": kind, "severity": severity, "entity": entity, "text": text }));
    }
    if let Some(killed) = &judgement.killed {
        own.insert("killed".into(), json!({ "outcome": killed.as_str(), "why": killed.why() }));
    }
    if let Some(denial) = &judgement.denial {
        let rules = denial.rules().map(|(policy, rule)| json!({ "policy": policy, "rule": rule }));
        own.insert("denial".into(), json!({ "outcome": denial.as_str(), "rules": rules.collect::<Vec<Value>>() }));
    }
    if !judgement.withheld.is_empty() && !judgement.is_alert() {
        own.insert("alert_withheld".into(), true.into());
    }
    if judgement.withheld_before > 0 {
        own.insert("alerts_withheld_before".into(), judgement.withheld_before.into());
    }
    own
}

/// OCSF `severity_id`.
fn severity_id(severity: Severity) -> u64 {
    match severity {
        Severity::Informational => 1,
        Severity::Low => 2,
        Severity::Medium => 3,
        Severity::High => 4,
        Severity::Critical => 5,
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use plumbline_policy::PolicySet;

    use super::*;
    use crate::{
        event::{Connect, ConnectHow, FileKey, FileOpen, NetNs, Protocol, Task},
        identity::{
            Process, Who,
            tree::{HasRead, MAX_FILES, Taken},
        },
        verdict,
    };

    #[test]
    fn names_of_four_kib_everywhere_still_make_a_record_that_says_what_it_left_out() {
        let long = vec![0xff; 4095];
        let process = |pid| Process { pid, exe: Some(long.clone()), comm: vec![0xff; 15], ..Process::default() };
        let identity = Identity {
            process: process(1),
            ancestors: (2..18).map(process).collect(),
            artefact: None,
            ..Identity::default()
        };
        let key = FileKey { dev: 1, ino: 1, generation: 0 };
        let open = FileOpen {
            path: [b"/".to_vec(), long.clone()].concat(),
            path_truncated: false,
            known_as: None,
            key,
            watched: key,
            flags: 0,
            inode_mode: 0,
            size_bytes: 0,
            links: 1,
            received: false,
            denied_by: None,
        };
        let taken = Taken {
            path: Some(long.clone()),
            reader: Who { exe: Some(long.clone()), ..Who::default() },
            ..Taken::of(&What::FileOpen(open.clone()), Who::default(), 1).unwrap()
        };
        let identity = Identity { has_read: HasRead { files: vec![taken; MAX_FILES], left_out: 0 }, ..identity };
        let connect = Connect {
            protocol: Protocol::Tcp,
            address: IpAddr::from([203, 0, 113, 7]),
            port: 443,
            how: ConnectHow::Begin,
            denied_by: None,
            source: None,
            net_ns: NetNs::default(),
        };
        let recorder = Recorder {
            hostname: "h".into(),
            boot_id: "b".into(),
            build: "c".into(),
            redactor: Arc::default(),
            processes: false,
        };
        let moment = Moment { unix_minus_boot_ns: 0, clock_sync: "unknown", policy_digest: "d", policy_generation: 1 };
        let policies = PolicySet::embedded();
        let sealed = |what| {
            let event = Event { boot_ns: 1, origin: None, task: Some(Task::default()), what };
            let judgement = verdict::judge(&policies, &Vec::new(), &event, Some(&identity));
            let drafted = recorder.draft(&event, Some(&identity), judgement.as_ref(), &moment).unwrap().unwrap();
            let bytes = drafted.draft.seal("o", 0, &plumbline_audit::merkle::Hash::ZERO).unwrap();
            serde_json::from_slice::<Value>(&bytes).unwrap()
        };
        let connection = sealed(What::Connect(connect));
        let own = &connection["unmapped"]["plumbline"];
        assert_eq!((own["has_read"].as_array().map(Vec::len), &own["has_read_left_out"]), (Some(1), &json!(15)));
        let record = sealed(What::FileOpen(open));
        assert_eq!(record["metadata"]["is_truncated"], true);
        assert!(record["actor"]["process"].get("ancestry").is_none());
        assert!(record["unmapped"]["plumbline"]["path_b64"].is_string());
        assert_eq!(record["unmapped"]["plumbline"]["untruncated_sha256"].as_str().map(str::len), Some(64));
    }
}
