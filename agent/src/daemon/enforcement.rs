//! What policies deny, from the daemon's side: the kernel's tables, and the gate where the kernel asks this process.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex, mpsc as std_mpsc},
};

use plumbline_policy::{Denials, PolicySet};
use tokio::sync::mpsc;

use crate::{
    core::chain,
    event::FileKey,
    identity::{exe_name::Whose, procfs::Procfs},
    message::Message,
    probes::{
        HookVerdict, Probes,
        deny::DenyTables,
        gate::{Gate, Opening},
        programs::LookedFor,
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
    /// Programs that policies name by their whole paths.
    looked_for: LookedFor,
}

impl Enforcement {
    /// Takes the kernel's tables, knowing what runs already.
    pub(super) fn new(probes: &mut Probes, messages: &mpsc::Sender<Message>) -> Option<Self> {
        let tables = DenyTables::take(probes);
        let tables = tables.map_err(|error| tracing::error!(error = %chain(&error), "nothing can be denied")).ok()?;
        let mut denier = Denier::new(tables);
        match probes.running_by_name() {
            Ok(running) => running.into_iter().for_each(|(key, path, whose)| denier.is_called(key, path, whose)),
            Err(reason) => tracing::warn!(
                reason,
                "to policies that deny, programs that run already are unknown until they start anew"
            ),
        }
        Some(Self {
            denier: Arc::new(Mutex::new(denier)),
            is_in_kernel: is_in_kernel(&probes.verdicts),
            gate: None,
            messages: messages.clone(),
            looked_for: LookedFor::default(),
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

    /// Looks whether accounts and programs are still what they were when the policies were put in force.
    pub(super) fn look_again(&mut self, probes: &mut Probes, answers: &std_mpsc::Receiver<Enrolled>) {
        let denials = {
            let mut denier = deny::lock(&self.denier);
            denier.read_users(&Procfs::default());
            denier.in_force()
        };
        self.look_for(probes, answers, &denials);
    }

    /// Which files the programs are that rules name by their whole paths, before they are run.
    fn look_for(&mut self, probes: &mut Probes, answers: &std_mpsc::Receiver<Enrolled>, denials: &Denials) {
        let has_forgotten = deny::lock(&self.denier).has_forgotten_programs();
        if has_forgotten {
            self.looked_for = LookedFor::default();
        }
        let paths = denials.programs().into_iter().map(Path::new);
        let found = probes.programs_of_host(paths, &mut self.looked_for, answers).into_iter();
        let found = found.map(|(key, path)| (key, path.into_os_string().into_encoded_bytes(), Whose::Host));
        let running = if has_forgotten { probes.running_by_name().unwrap_or_default() } else { Vec::new() };
        let mut denier = deny::lock(&self.denier);
        for (key, path, whose) in running.into_iter().chain(found) {
            denier.is_called(key, path, whose);
        }
    }

    /// Hooks fared otherwise than before. Where the kernel decides about opens no more, it asks from now on.
    pub(super) fn hooks_changed(&mut self, verdicts: &[HookVerdict]) {
        self.is_in_kernel = is_in_kernel(verdicts);
        if self.is_in_kernel || self.gate.is_some() {
            return;
        }
        let mut denier = deny::lock(&self.denier);
        if !denier.in_force().of_opens() {
            return;
        }
        let directories = denier.denying_directories(None);
        match start_gate(&mut denier, &self.messages) {
            Ok(gate) => {
                drop(denier);
                guard(&gate, &directories);
                self.gate = Some(gate);
            }
            Err(error) => tracing::error!(error, "opens are not denied any more"),
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
        self.look_for(probes, answers, &denials);
        let mut denier = deny::lock(&self.denier);
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

fn is_in_kernel(verdicts: &[HookVerdict]) -> bool {
    // A hook that fell silent may be detached, and is none.
    let by_lsm = |verdict: &HookVerdict| {
        verdict.hook.name == "file_open" && verdict.attached().is_some_and(|rung| rung.name == "lsm")
    };
    verdicts.iter().any(by_lsm)
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
