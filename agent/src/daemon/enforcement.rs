//! What policies deny, from the daemon's side: the kernel's tables, and the gate where the kernel asks this process.

use std::{
    collections::HashMap,
    fs,
    os::unix::fs::MetadataExt as _,
    path::PathBuf,
    sync::{Arc, Mutex, mpsc as std_mpsc},
};

use plumbline_policy::PolicySet;
use tokio::sync::mpsc;

use crate::{
    core::chain,
    event::FileKey,
    identity::procfs::{Procfs, without_deleted},
    message::Message,
    probes::{
        HookVerdict, Probes,
        deny::DenyTables,
        gate::{Gate, Opening},
        watch::{Enrolled, Enrolment, Watched},
    },
    verdict::{
        WatchedPaths,
        deny::{self, Denier, Prepared, SharedDenier},
        gatekeeper::{self, SharedView},
    },
};

/// What denies.
#[derive(Debug)]
pub(super) struct Enforcement {
    pub(super) denier: SharedDenier,
    /// Opens are decided in the kernel, and need no gate.
    is_in_kernel: bool,
    gate: Option<Gate>,
    messages: mpsc::Sender<Message>,
    /// Programs that policies name by path and that were looked for, and which file each was.
    looked_for: HashMap<PathBuf, (u64, u64, i64, i64)>,
}

impl Enforcement {
    /// Takes the kernel's tables, knowing what runs already.
    pub(super) fn new(probes: &mut Probes, messages: &mpsc::Sender<Message>) -> Option<Self> {
        let tables = DenyTables::take(probes);
        let tables = tables.map_err(|error| tracing::error!(error = %chain(&error), "nothing can be denied")).ok()?;
        let running = probes.running().unwrap_or_else(|reason| {
            tracing::warn!(
                reason,
                "to policies that deny, programs that run already are unknown until they start anew"
            );
            Vec::new()
        });
        let path = |pid: u32| fs::read_link(format!("/proc/{pid}/exe")).ok();
        let running = running
            .into_iter()
            .filter_map(|(key, pid)| Some((key, without_deleted(path(pid)?.into_os_string().into_encoded_bytes()))));
        let by_lsm = |verdict: &HookVerdict| {
            verdict.hook.name == "file_open" && verdict.attached().is_some_and(|rung| rung.name == "lsm")
        };
        Some(Self {
            denier: Arc::new(Mutex::new(Denier::new(tables, running.collect()))),
            is_in_kernel: probes.verdicts.iter().any(by_lsm),
            gate: None,
            messages: messages.clone(),
            looked_for: HashMap::new(),
        })
    }

    /// Directories that no program has met yet.
    pub(super) fn about_to_watch(&self, watched: &[Watched]) {
        deny::lock(&self.denier).watches(&named(watched), true);
    }

    /// What is watched now; `keep` as for [`Probes::watch`].
    pub(super) fn watches(&mut self, enrolment: &Enrolment, keep: bool) {
        // Those of policies that change are in force until the new ones are.
        deny::lock(&self.denier).watches(&with_files(enrolment), !keep);
        // Directories that are new below the watched ones.
        if keep && let Some(gate) = &self.gate {
            let directories = deny::lock(&self.denier).denying_directories(None);
            guard(gate, &directories);
        }
    }

    /// Fills the kernel's tables for these policies, beside those that are in force.
    pub(super) fn prepare(
        &mut self,
        probes: &mut Probes,
        answers: &std_mpsc::Receiver<Enrolled>,
        policies: &PolicySet,
    ) -> Result<Prepared, String> {
        let denials = policies.denials().map_err(|error| error.to_string())?;
        let mut looked_at = HashMap::new();
        for path in denials.programs() {
            if let Ok(meta) = fs::metadata(path) {
                looked_at.insert(PathBuf::from(path), (meta.dev(), meta.ino(), meta.ctime(), meta.ctime_nsec()));
            }
        }
        let new = looked_at.iter().filter(|(path, stat)| self.looked_for.get(*path) != Some(stat));
        let found = probes.keys_of(new.map(|(path, _)| path.as_path()), answers);
        self.looked_for = looked_at;
        let mut denier = deny::lock(&self.denier);
        for (key, path) in found {
            denier.runs(key, path.into_os_string().into_encoded_bytes());
        }
        let prepared = denier.prepare(policies, &Procfs::default())?;
        if self.gate.is_none() && prepared.denies_opens() && !self.is_in_kernel {
            match start_gate(&mut denier, &self.messages) {
                Ok(gate) => self.gate = Some(gate),
                Err(error) => {
                    denier.discard(&prepared);
                    return Err(error);
                }
            }
        }
        let directories = denier.denying_directories(Some(&prepared));
        drop(denier);
        if let Some(gate) = &self.gate {
            guard(gate, &directories);
        }
        Ok(prepared)
    }

    /// From now on these rules decide.
    pub(super) fn put_in_force(&self, prepared: Prepared) {
        deny::lock(&self.denier).put_in_force(prepared);
    }

    /// Opens that were allowed because nobody had decided in time; `None` where the kernel decides.
    pub(super) fn failed_open(&self) -> Option<u64> {
        self.gate.as_ref().map(Gate::failed_open)
    }
}

/// Asks about opens in these directories, in which a rule denies. It walks them: nobody must wait for it.
fn guard(gate: &Gate, directories: &[PathBuf]) {
    for (path, error) in gate.guard(directories) {
        tracing::error!(path = %path.display(), %error, "opens of it are not asked about");
    }
}

/// Denied opens that wait to be told; while there are more, nobody decides, and opens fail open.
const UNTOLD: usize = 4096;

fn start_gate(denier: &mut Denier, messages: &mpsc::Sender<Message>) -> Result<Gate, String> {
    let view = SharedView::default();
    denier.show_to(view.clone());
    let decide = move |opening: &Opening| gatekeeper::decide(&view.now(), opening);
    let (denied, to_tell) = std_mpsc::sync_channel(UNTOLD);
    let messages = messages.clone();
    let teller = std::thread::Builder::new().name("gate-teller".to_owned()).spawn(move || {
        for event in to_tell {
            // The core ends after every sender.
            let _ = messages.blocking_send(Message::Event(Box::new(event)));
        }
    });
    teller.map_err(|error| error.to_string())?;
    Gate::start(Box::new(decide), Box::new(move |event| drop(denied.send(event))))
}

pub(super) fn named(watched: &[Watched]) -> WatchedPaths {
    watched.iter().map(|watched| (watched.key, watched.asked.clone())).collect()
}

/// The directories, and the files below several of them by the names of each.
fn with_files(enrolment: &Enrolment) -> WatchedPaths {
    let mut named = named(&enrolment.watched);
    for (file, directories) in &enrolment.below_several {
        let key = FileKey { dev: file.dev, ino: file.ino, generation: 0 };
        let above = enrolment.watched.iter().filter(|watched| directories.contains(&watched.key));
        named.extend(above.map(|watched| (key, watched.asked.clone())));
    }
    named
}
