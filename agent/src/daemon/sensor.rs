//! The sensor role from the daemon's side: kernel programs, watched directories, losses, the canary, and the statement of
//! what is seen.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, mpsc as std_mpsc},
};

use plumbline_policy::{KernelProfile, PolicySet};
use tokio::{
    sync::{mpsc, watch},
    task::JoinHandle,
    time::MissedTickBehavior,
};

use super::{DaemonError, enforcement::Enforcement, enforcement::named};
use crate::{
    clock,
    config::Config,
    core::{SharedStore, chain, lock},
    event::{CoverageStatement, Event, Hook, Sight, What},
    http::policies::InForce,
    message::Message,
    probes::{
        HookVerdict, Probes, ProbesError, State,
        canary::{self, Canary, Finding, PROVABLE, Proof},
        kernel::{KernelFacts, words},
        loss::{Holes, LossAccount},
        memory,
        sensor::{self, Taps},
        watch::{Enrolled, MAX_WATCHED, Watched},
        ways,
    },
    series::{Point, kernel},
    verdict::{
        self, Rules, WatchedPaths,
        deny::{self, Prepared},
        enforce,
    },
};

/// Programs that tell which processes there are.
const LIVES: [&str; 3] = ["fork", "exec", "exit"];

/// The table of processes is read anew at most so often.
const HEAL_EVERY_NS: u64 = 10_000_000_000;

/// The sensor role, or why there is none.
pub(super) struct Sensor {
    pub(super) probes: Result<Probes, String>,
    answers: std_mpsc::Receiver<Enrolled>,
    drain: Option<JoinHandle<()>>,
    pub(super) watched: WatchedPaths,
    losses: LossAccount,
    holes: Arc<Holes>,
    facts: KernelFacts,
    canary: Result<Arc<Canary>, String>,
    proof: Arc<Proof>,
    /// Why the canary does not sing.
    muted: Option<String>,
    /// Programs that the canary missed the last time.
    missed: u32,
    /// Programs that told something that is not so the last time.
    wrong: u32,
    /// Programs of which records were lost since the canary sang last: its own may be among them.
    lost_lately: u32,
    /// Forks, execs or exits were lost since the table of processes was read last.
    is_incomplete: bool,
    healed_boot_ns: u64,
    /// Digest of the policies whose directories are watched.
    policies: Option<String>,
    /// Directories that are watched by inode only.
    pub(super) lost_sight_of: Vec<String>,
    /// What is denied; `None` where no kernel program runs.
    pub(super) enforcement: Option<Enforcement>,
}

impl Sensor {
    pub(super) fn start(
        config: &Config,
        messages: &mpsc::Sender<Message>,
        stop: &watch::Receiver<bool>,
    ) -> Result<Self, DaemonError> {
        let (enrolled, answers) = std_mpsc::channel();
        let facts = KernelFacts::read();
        let taps = Taps::new(enrolled);
        let started = Probes::load(&config.probes).and_then(|mut probes| {
            let drain = sensor::start(&mut probes, messages, &taps, stop)?;
            let enforcement = Enforcement::new(&mut probes, messages);
            Ok((probes, drain, enforcement))
        });
        let mut enforcement = None;
        let (probes, drain) = match started {
            Ok((probes, drain, found)) => {
                enforcement = found;
                (Ok(probes), Some(drain))
            }
            Err(error @ (ProbesError::UnknownRung(_) | ProbesError::RingBytes(_))) => {
                return Err(DaemonError::Probes(error));
            }
            Err(error) => (Err(chain(&error)), None),
        };
        match &probes {
            Ok(probes) => {
                for verdict in &probes.verdicts {
                    tracing::info!(hook = verdict.hook.name, state = verdict.describe(), "hook");
                }
            }
            Err(reason) => tracing::error!(reason, "no kernel program runs: file opens and connections are not seen"),
        }
        let blind = probes.as_ref().map_or(true, Probes::is_useless);
        if blind && !config.gpu.enabled && !config.engines.discover && config.engines.targets.is_empty() {
            let probes = probes.err().unwrap_or_else(|| "the kernel took no rung of any hook".to_owned());
            return Err(DaemonError::Useless { probes });
        }
        Ok(Self {
            probes,
            answers,
            drain,
            watched: WatchedPaths::new(),
            losses: LossAccount::default(),
            holes: taps.holes,
            facts,
            canary: Err("it has not been made yet".to_owned()),
            proof: taps.canary,
            muted: None,
            missed: 0,
            wrong: 0,
            lost_lately: 0,
            is_incomplete: false,
            healed_boot_ns: 0,
            policies: None,
            lost_sight_of: Vec::new(),
            enforcement,
        })
    }

    /// Makes the canary. The sensor must be draining, and the core taking what it drains.
    pub(super) fn hatch(&mut self, directory: &Path) {
        self.canary = match &mut self.probes {
            Ok(probes) => hatch(probes, &self.answers, directory, Arc::clone(&self.proof)),
            Err(_) => Err("there is no kernel program to prove".to_owned()),
        };
        if let Err(reason) = &self.canary {
            tracing::warn!(reason, "the hooks are not proven: no self-test, no canary");
        }
    }

    /// Proves every hook once; one that tells what is not so is taken out. What is silent is given a second chance.
    pub(super) fn self_test(&mut self) {
        for _ in 0..2 {
            let Ok(canary) = &self.canary else { return };
            match canary.sing(self.expected()) {
                Ok(finding) if finding == Finding::default() => return,
                Ok(finding) => drop(self.heard(&finding)),
                Err(error) => {
                    self.canary = Err(format!("it cannot sing: {error}"));
                    return;
                }
            }
        }
    }

    /// What later rounds find, for as long as somebody listens.
    pub(super) fn sings(&self) -> mpsc::Receiver<std::io::Result<Finding>> {
        let (told, findings) = mpsc::channel(1);
        if let (Ok(canary), expected) = (&self.canary, self.expected()) {
            let canary = Arc::clone(canary);
            tokio::spawn(async move {
                let mut round = tokio::time::interval_at(tokio::time::Instant::now() + canary::EVERY, canary::EVERY);
                round.set_missed_tick_behavior(MissedTickBehavior::Delay);
                while !told.is_closed() {
                    round.tick().await;
                    let canary = Arc::clone(&canary);
                    let Ok(finding) = tokio::task::spawn_blocking(move || canary.sing(expected)).await else { return };
                    if told.send(finding).await.is_err() {
                        return;
                    }
                }
            });
        }
        findings
    }

    /// The canary could not sing: from now on the hooks are not proven, until it sings again.
    pub(super) fn mute(&mut self, error: &std::io::Error) -> Option<CoverageStatement> {
        let said = format!("the canary cannot sing: {error}");
        if self.muted.as_ref() == Some(&said) {
            return None;
        }
        tracing::error!(said, "the hooks are not proven");
        self.muted = Some(said.clone());
        Some(self.statement(said))
    }

    /// Takes a finding in; a statement if it changes what is seen.
    pub(super) fn heard(&mut self, finding: &Finding) -> Option<CoverageStatement> {
        let sings_again = self.muted.take().is_some();
        let missed_twice = finding.silent & std::mem::replace(&mut self.missed, finding.silent);
        let uncertain = std::mem::take(&mut self.lost_lately);
        let Ok(probes) = &mut self.probes else { return None };
        let mut changes = Vec::new();
        for verdict in &mut probes.verdicts {
            let bit = 1 << verdict.hook.program;
            match verdict.state {
                State::Attached(rung) if missed_twice & bit != 0 && uncertain & bit == 0 => {
                    verdict.state = State::Silent(rung);
                    changes.push(format!("{} fell silent", verdict.hook.name));
                }
                State::Silent(rung) if finding.silent & bit == 0 => {
                    verdict.state = State::Attached(rung);
                    changes.push(format!("{} is heard again", verdict.hook.name));
                }
                _ => {}
            }
        }
        let wrong = finding.wrong.keys().fold(0, |bits, number| bits | 1 << number);
        let wrong_before = std::mem::replace(&mut self.wrong, wrong);
        for (number, why) in finding.wrong.iter().filter(|(number, _)| wrong_before & 1 << **number != 0) {
            if let Err(error) = probes.disarm(*number, why) {
                tracing::error!(error = %chain(&error), "a hook that tells what is not so could not be taken out");
            }
            let name = plumbline_ebpf::program::NAMES.get(*number as usize).copied().unwrap_or("unknown");
            changes.push(format!("{name} was taken out: {why}"));
        }
        if let Some(enforcement) = &mut self.enforcement {
            enforcement.hooks_changed(&probes.verdicts);
        }
        if sings_again {
            changes.push("the canary sings again".to_owned());
        }
        if changes.is_empty() {
            return None;
        }
        let cause = changes.join("; ");
        tracing::error!(cause, "what is seen has changed");
        Some(self.statement(cause))
    }

    /// Hooks that ought to tell of the canary.
    fn expected(&self) -> u32 {
        let Ok(probes) = &self.probes else { return 0 };
        let expected = probes.verdicts.iter().filter(|one| matches!(one.state, State::Attached(_) | State::Silent(_)));
        expected.fold(0, |bits, verdict| bits | 1 << verdict.hook.program) & PROVABLE
    }

    /// What is seen and what is not, as of now.
    pub(super) fn statement(&self, cause: String) -> CoverageStatement {
        let own =
            |rows: &[(&str, String)]| rows.iter().map(|(name, words)| ((*name).to_owned(), words.clone())).collect();
        let mut hooks = self.coverage();
        hooks.push(("canary".to_owned(), self.canary_in_words()));
        let verdicts = self.probes.as_ref().map(|probes| &probes.verdicts[..]).unwrap_or_default();
        let blind: Vec<(&str, String)> =
            ways::blind(verdicts).map(|way| (way.name, way.otherwise.to_owned())).collect();
        // A directory that was lost sight of is among those that are watched: the later row replaces the first.
        let watched = self.watched.iter().map(|(_, path)| (path.display().to_string(), "watched".to_owned()));
        let lost = self
            .lost_sight_of
            .iter()
            .map(|path| (path.clone(), "its name leads elsewhere or nowhere; still watched by inode".to_owned()));
        let watched = watched.chain(lost).collect();
        let host: Vec<(&str, String)> = self.facts.rows().iter().map(|(name, fact)| (*name, words(fact))).collect();
        CoverageStatement { cause, hooks, host: own(&host), watched, blind: own(&blind) }
    }

    fn canary_in_words(&self) -> String {
        if let Some(muted) = &self.muted {
            return format!("absent: {muted}");
        }
        match &self.canary {
            Ok(_) => format!("proves {} hooks every {} s", self.expected().count_ones(), canary::EVERY.as_secs()),
            Err(reason) => format!("absent: {reason}"),
        }
    }

    /// The hooks' verdicts go to the store.
    pub(super) fn publish_hooks(&self, store: &SharedStore) {
        let verdicts = self.probes.iter().flat_map(|probes| &probes.verdicts);
        let points = verdicts.map(|verdict| {
            let (rung, up) = match verdict.state {
                State::Attached(rung) => (rung.name, 1.0),
                State::Silent(rung) => (rung.name, 0.0),
                _ => ("none", 0.0),
            };
            Point::new(&kernel::HOOK_ATTACHED, &[verdict.hook.name, rung], up)
        });
        let points = points.collect();
        let mut store = lock(store);
        store.replace(&kernel::HOOK_ATTACHED, points);
        if self.probes.is_ok() {
            #[expect(clippy::cast_precision_loss, reason = "exact up to 2^53")]
            store.set(Point::new(&kernel::MAP_MEMORY, &[], memory::map_bytes() as f64));
        }
    }

    /// Enrols what the policies name and exists now, by the inodes that the paths lead to now.
    pub(super) fn watch(&mut self, policies: &PolicySet) -> WatchedPaths {
        let keep = self.policies.as_deref() == Some(policies.digest());
        self.policies = Some(policies.digest().to_owned());
        // What was watched before still is, where it fails.
        if let Err(error) = self.watch_directories(&verdict::directories(policies), keep) {
            tracing::error!(error, "the watched directories could not be renewed");
        }
        self.watched.clone()
    }

    /// The same for policies that are to be in force in the place of others, until they are: whatever either names, as far as
    /// there is room.
    pub(super) fn watch_both(&mut self, coming: &PolicySet, in_force: &PolicySet) -> Result<WatchedPaths, String> {
        self.policies = None;
        let mut directories = verdict::directories(coming);
        let leaving = verdict::directories(in_force).into_iter().filter(|one| !directories.contains(one));
        let leaving: Vec<PathBuf> = leaving.take(MAX_WATCHED.saturating_sub(directories.len())).collect();
        directories.extend(leaving);
        self.watch_directories(&directories, false)?;
        Ok(self.watched.clone())
    }

    fn watch_directories(&mut self, directories: &[PathBuf], keep: bool) -> Result<(), String> {
        let Ok(probes) = &mut self.probes else { return Ok(()) };
        let enforcement = self.enforcement.as_mut();
        let mut about_to = |watched: &[Watched]| {
            if let Some(enforcement) = &enforcement {
                enforcement.about_to_watch(watched);
            }
        };
        let enrolment = probes.watch(directories, &self.answers, keep, &mut about_to).map_err(|error| chain(&error))?;
        if let Some(enforcement) = enforcement {
            enforcement.watches(&enrolment, keep);
            if keep {
                enforcement.look_again(probes, &self.answers);
            }
        }
        self.lost_sight_of = enrolment.lost_sight_of.iter().map(|directory| directory.display().to_string()).collect();
        for (directory, error) in &enrolment.failed {
            tracing::error!(directory = %directory.display(), error = %chain(error), "a directory is not watched");
        }
        let watched = named(&enrolment.watched);
        for (key, directory) in watched.iter().filter(|one| !self.watched.contains(one)) {
            tracing::info!(directory = %directory.display(), inode = key.ino, "watching");
        }
        self.watched = watched;
        Ok(())
    }

    /// Fills the kernel's tables for these policies, beside those that are in force; `None` where no kernel program runs.
    pub(super) fn prepare(&mut self, policies: &PolicySet) -> Result<Option<Prepared>, String> {
        let (Some(enforcement), Ok(probes)) = (&mut self.enforcement, &mut self.probes) else {
            let is_empty = policies.denials().map_err(|error| error.to_string())?.is_empty();
            return if is_empty { Ok(None) } else { Err("nothing can be denied: no kernel program runs".to_owned()) };
        };
        enforcement.prepare(probes, &self.answers, policies).map(Some)
    }

    /// From now on the kernel decides by these.
    pub(super) fn put_in_force(&self, prepared: Option<Prepared>) {
        if let (Some(enforcement), Some(prepared)) = (&self.enforcement, prepared) {
            enforcement.put_in_force(prepared);
        }
    }

    /// Fills in how much of the kernel's tables is each policy's.
    pub(super) fn weigh(&self, policies: &mut [InForce]) {
        let Some(enforcement) = &self.enforcement else { return };
        let bytes = deny::lock(&enforcement.denier).bytes_by_policy();
        for policy in policies {
            policy.kernel_table_bytes = Some(bytes.get(&policy.name).copied().unwrap_or(0));
        }
    }

    /// These policies, with what the core must know of how they are in force.
    pub(super) fn rules(&self, policies: Arc<PolicySet>, watched: WatchedPaths) -> Rules {
        let is_told_before = |verdict: &HookVerdict| {
            verdict.hook.name == "file_open" && verdict.attached().is_some_and(|rung| rung.name == "fentry")
        };
        let opens_are_told_before = self.probes.as_ref().is_ok_and(|probes| probes.verdicts.iter().any(is_told_before));
        let mut rules = Rules::new(policies, watched);
        rules.opens_are_told_before = opens_are_told_before;
        rules
    }

    /// What this kernel can do of what policies need, the rungs that were reached considered.
    pub(super) fn profile(&self) -> KernelProfile {
        enforce::with(
            self.probes.as_ref().map(|probes| &probes.verdicts[..]).map_err(String::as_str),
            self.enforcement.is_some(),
        )
    }

    /// The last records and losses, once the drain has been told to stop.
    pub(super) async fn finish(&mut self, store: &SharedStore) -> Vec<Event> {
        self.enforcement = None;
        if let Some(drain) = self.drain.take() {
            let _ = drain.await;
        }
        self.account(store)
    }

    pub(super) fn tasks(&mut self) -> Vec<crate::event::Task> {
        let Ok(probes) = &mut self.probes else { return Vec::new() };
        probes.tasks().unwrap_or_else(|reason| {
            tracing::warn!(reason, "running processes are not known from the kernel; /proc answers for them");
            Vec::new()
        })
    }

    /// Hooks, and how each fared, as events.
    pub(super) fn hooks(&self) -> Vec<Hook> {
        let Ok(probes) = &self.probes else { return Vec::new() };
        let hook = |verdict: &HookVerdict| Hook {
            name: verdict.hook.name.to_owned(),
            rung: verdict.attached().map(|rung| rung.name.to_owned()),
            sight: match verdict.state {
                State::Attached(_) => Sight::Sees,
                State::NotNeeded => Sight::NotNeeded,
                State::Silent(_) => Sight::Silent,
                State::Unsupported | State::Failed => Sight::Blind,
            },
            state: verdict.describe(),
        };
        probes.verdicts.iter().map(hook).collect()
    }

    /// Hooks, and how each fared.
    pub(super) fn coverage(&self) -> Vec<(String, String)> {
        match &self.probes {
            Ok(probes) => {
                probes.verdicts.iter().map(|verdict| (verdict.hook.name.to_owned(), verdict.describe())).collect()
            }
            Err(reason) => vec![("kernel programs".to_owned(), format!("absent: {reason}"))],
        }
    }

    /// Every process that runs now, when something that tells of them was lost; not more often than every ten seconds.
    pub(super) fn heal(&mut self, losses: &[Event]) -> Option<Message> {
        self.is_incomplete |= losses.iter().any(|event| match &event.what {
            What::Loss(loss) => LIVES.contains(&loss.what.as_str()),
            _ => false,
        });
        let taken_boot_ns = clock::boot_ns();
        if !self.is_incomplete || taken_boot_ns.saturating_sub(self.healed_boot_ns) < HEAL_EVERY_NS {
            return None;
        }
        (self.is_incomplete, self.healed_boot_ns) = (false, taken_boot_ns);
        tracing::info!("forks, execs or exits were lost: the table of processes is read anew");
        let tasks = self.tasks();
        // Nobody told: nothing is known to have ended.
        (!tasks.is_empty()).then_some(Message::Tasks { taken_boot_ns, tasks })
    }

    /// What was lost since the last account; the counters go to the store.
    pub(super) fn account(&mut self, store: &SharedStore) -> Vec<Event> {
        let Ok(probes) = &mut self.probes else { return Vec::new() };
        if let Err(error) = probes.forget_directories() {
            tracing::warn!(error = %chain(&error), "what the programs remember of directories could not be made old");
        }
        let missing = self.holes.missing();
        let Ok(counted) = probes.counted() else { return Vec::new() };
        let misses: Vec<(&'static str, u64)> =
            probes.recursion_misses().into_iter().map(|(hook, misses)| (hook.name, misses)).collect();
        let mut store = lock(store);
        for (name, cpus) in plumbline_ebpf::program::NAMES.iter().zip(&counted) {
            #[expect(clippy::cast_precision_loss, reason = "exact up to 2^53")]
            let generated = cpus.iter().map(|cpu| cpu.generated).sum::<u64>() as f64;
            store.set(Point::new(&kernel::GENERATED, &[name], generated));
        }
        if let Some(failed_open) = self.enforcement.as_ref().and_then(Enforcement::failed_open) {
            #[expect(clippy::cast_precision_loss, reason = "exact up to 2^53")]
            store.set(Point::new(&kernel::FAILED_OPEN, &[], failed_open as f64));
        }
        drop(store);
        let mut losses = self.losses.settle(&missing, &counted, &misses);
        match probes.held_back(&mut self.losses) {
            Ok(held_back) => losses.extend(held_back),
            Err(error) => tracing::warn!(error = %chain(&error), "what rates held back could not be read"),
        }
        // What the rate of a cgroup holds back is another cgroup's, or the flood is in our own.
        let lost = losses.iter().filter_map(|event| match &event.what {
            What::Loss(loss) => plumbline_ebpf::program::NAMES.iter().position(|name| *name == loss.what),
            _ => None,
        });
        self.lost_lately |= lost.fold(0, |bits, number| bits | 1 << number);
        losses
    }
}

/// Makes the canary and enrols its file.
fn hatch(
    probes: &mut Probes,
    answers: &std_mpsc::Receiver<Enrolled>,
    directory: &Path,
    proof: Arc<Proof>,
) -> Result<Arc<Canary>, String> {
    let canary = Canary::new(directory, proof).map_err(|error| format!("{}: {error}", directory.display()))?;
    let key = probes.enrol_canary(canary.path(), answers).map_err(|error| chain(&error))?;
    canary.enrolled(key).map_err(|error| error.to_string())?;
    Ok(Arc::new(canary))
}
