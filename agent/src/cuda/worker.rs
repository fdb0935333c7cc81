//! The thread that looks for libraries, attaches to them, reads what was counted, and keeps the whole within its budget.

use std::{
    collections::BTreeMap,
    os::fd::AsFd as _,
    path::PathBuf,
    time::{Duration, Instant, SystemTime},
};

use plumbline_policy::Severity;
use tokio::sync::mpsc;

use super::{
    SOURCE,
    account::{float, of_process},
    attention::{Attention, Whose},
    budget::{Budget, Change, Cost},
    config::CudaConfig,
    control::{Orders, View},
    libraries::{FileKey, Libraries, Library, Look},
    mapped::Mapped,
    nccl::{inspector::Inspector, logs::Logs, ras::Ras},
    part::{Part, Thinned},
    probes::{Probes, Reading},
    told::{Telling, process_name},
};
use crate::{
    clock,
    core::chain,
    event::{Event, Finding, FoundProcess, What},
    halt::{Halt, Woken},
    message::Message,
    series::{Point, Sample, cuda, nccl},
};

/// Between two looks for libraries, and two readings of the counts.
const EVERY: Duration = Duration::from_secs(5);

/// Between two looks at what was mapped meanwhile, which end the wait if there is a library among it.
const NEWS_EVERY: Duration = Duration::from_millis(200);

/// Now and then, for a moment, the kernel times its programs and all that is wanted is looked at.
const SAMPLE_EVERY_NS: u64 = 60_000_000_000;
const SAMPLE: Duration = Duration::from_secs(1);

pub struct Worker {
    proc: PathBuf,
    attention: Attention,
    orders: Orders,
    libraries: Libraries,
    /// `None` while nobody wants to know, or where the kernel does not tell.
    mapped: Option<Mapped>,
    is_deaf: bool,
    found: BTreeMap<FileKey, Library>,
    probes: Option<Probes>,
    /// Why there are none, and will be none.
    absent: Option<String>,
    budget: Budget,
    costs: Vec<Cost>,
    changes: Vec<Change>,
    watched: Watched,
    sampled_boot_ns: Option<u64>,
    were_steps_thinned: bool,
    is_told_by_others: bool,
    logs: Logs,
    inspector: Inspector,
    ras: Ras,
    telling: Telling,
    out: mpsc::WeakSender<Message>,
    halt: Halt,
}

/// Nobody wants to know any more, or nothing can be known.
pub struct Over;

impl Worker {
    pub fn new(config: &CudaConfig, orders: Orders, out: mpsc::WeakSender<Message>, halt: Halt) -> Self {
        let proc = PathBuf::from("/proc");
        Self {
            libraries: Libraries::of(&proc),
            mapped: None,
            is_deaf: false,
            proc,
            attention: Attention::new(config.detail),
            orders,
            found: BTreeMap::new(),
            probes: None,
            absent: None,
            budget: Budget::new(config.budget_share()),
            costs: Vec::new(),
            changes: Vec::new(),
            watched: Watched::default(),
            sampled_boot_ns: None,
            were_steps_thinned: false,
            is_told_by_others: config.reads_others(),
            logs: Logs::of(&config.nccl_logs, config.nccl_journal.as_deref()),
            inspector: Inspector::of(&config.nccl_inspector),
            ras: Ras::of(config.nccl_ras),
            telling: Telling::default(),
            out,
            halt,
        }
    }

    /// Until the halt.
    pub fn run(mut self) {
        while !self.halt.is_halted() {
            if self.turn().and_then(|()| self.wait()).is_err() {
                return;
            }
        }
    }

    /// For as long as there is nothing to do, but to look at what was just loaded.
    fn wait(&mut self) -> Result<(), Over> {
        let until = Instant::now() + EVERY;
        let until = self.attention.ends().map_or(until, |end| end.min(until));
        loop {
            let was_let_go = self.probes.as_mut().is_some_and(Probes::let_one_go);
            let asked = if self.attention.is_off() { None } else { self.libraries.ask_one() };
            let rest = until.saturating_duration_since(Instant::now());
            let rest = if was_let_go || asked.is_some() {
                // There may be more.
                Duration::ZERO
            } else if self.mapped.is_some() || self.probes.is_some() {
                rest.min(NEWS_EVERY)
            } else {
                rest
            };
            let is_woken = self.halt.wait_or(Some(self.orders.as_fd()), rest) != Woken::Late;
            self.tell_news()?;
            let mut news = self.mapped.as_mut().map(Mapped::news).unwrap_or_default();
            news.extend(asked.flatten());
            if !news.is_empty() {
                self.look(Look::At(&news))?;
            }
            if is_woken || Instant::now() >= until {
                return Ok(());
            }
        }
    }

    /// What went wrong meanwhile, and began and ended.
    fn tell_news(&mut self) -> Result<(), Over> {
        let Some(probes) = &mut self.probes else { return Ok(()) };
        for event in self.telling.take(probes.told(), &self.proc) {
            self.send_event(event)?;
        }
        Ok(())
    }

    /// Before anybody is looked at, so that what is mapped after that is not missed.
    fn listen(&mut self) {
        if self.attention.is_off() {
            self.mapped = None;
        } else if self.mapped.is_none() && !self.is_deaf {
            self.mapped = Mapped::open()
                .inspect_err(|error| {
                    let reason = error.to_string();
                    tracing::warn!(
                        reason,
                        "the kernel does not tell of libraries that are loaded: they are looked for every {EVERY:?}"
                    );
                })
                .ok();
            self.is_deaf = self.mapped.is_none();
        }
    }

    fn turn(&mut self) -> Result<(), Over> {
        self.telling.begin_turn();
        let now = Instant::now();
        let before = self.attention.whose(Part::Rest);
        let ordered = self.orders.take().map(|order| self.attention.order(order, now));
        if let Some(change) = ordered.or_else(|| self.attention.expire(now)) {
            // What adds up, and what is compared, is of all of the time and of all processes, or begins anew.
            if self.attention.whose(Part::Rest) != before && self.probes.is_some() {
                self.tell_news()?;
                self.found.clear();
                self.unload()?;
            }
            self.change(&change)?;
        }
        for finding in self.logs.look() {
            self.say(finding)?;
        }
        self.inspector.look(SystemTime::now());
        self.listen();
        let has_lost = self.mapped.as_mut().is_some_and(Mapped::forget);
        if self.attention.is_off() && self.probes.is_some() {
            self.tell_news()?;
            self.found.clear();
            return self.unload();
        }
        self.look(if has_lost { Look::Everybody } else { Look::Around })?;
        self.show();
        if self.attention.is_off() {
            self.ras.forget();
        } else {
            for finding in self.ras.look(self.libraries.with_nccl(), &self.proc) {
                self.say(finding)?;
            }
        }
        if self.probes.is_none() {
            let points = self.told_by_others();
            let source = if self.absent.is_some() { "nccl" } else { SOURCE };
            let sample = Sample { source: source.to_owned(), taken_boot_ns: clock::boot_ns(), points: Ok(points) };
            return if self.is_told_by_others { self.send(Message::Sample(sample)) } else { Ok(()) };
        }
        let reading = self.read(false);
        self.publish(reading)?;
        let now_boot_ns = clock::boot_ns();
        let is_due = self.sampled_boot_ns.is_none_or(|at| now_boot_ns.saturating_sub(at) >= SAMPLE_EVERY_NS);
        if is_due && !self.found.is_empty() {
            self.sampled_boot_ns = Some(now_boot_ns);
            let reading = self.sample();
            self.publish(reading)?;
        }
        Ok(())
    }

    /// Attaches to what is mapped.
    fn look(&mut self, look: Look<'_>) -> Result<(), Over> {
        self.found = if self.attention.is_off() { BTreeMap::new() } else { self.libraries.look(look) };
        // Nothing is loaded before there is something to look at.
        if self.probes.is_none() && self.absent.is_none() && !self.found.is_empty() {
            match Probes::load() {
                Ok(probes) => self.probes = Some(probes),
                Err(error) => {
                    let reason = chain(&error);
                    tracing::warn!(reason, "calls of CUDA's driver and NCCL are not counted");
                    let taken_boot_ns = clock::boot_ns();
                    self.absent = Some(reason.clone());
                    // So that the status says why.
                    let sample = Sample { source: SOURCE.to_owned(), taken_boot_ns, points: Err(reason) };
                    self.send(Message::Sample(sample))?;
                    if !self.is_told_by_others {
                        // There is nothing left to look for.
                        self.show();
                        return Err(Over);
                    }
                }
            }
        }
        if self.probes.is_some() {
            self.attach();
        }
        Ok(())
    }

    /// With its tables: who belongs to what, and how many collectives each has called, is not known of a time in which nobody looked.
    fn unload(&mut self) -> Result<(), Over> {
        self.probes = None;
        self.were_steps_thinned = false;
        self.costs.clear();
        self.watched.turn(clock::boot_ns(), Part::ALL.map(|_| false));
        self.show();
        self.send(Message::Sample(Sample {
            source: SOURCE.to_owned(),
            taken_boot_ns: clock::boot_ns(),
            points: Ok(self.own_points()),
        }))
    }

    fn publish(&mut self, reading: Result<Reading, String>) -> Result<(), Over> {
        self.show();
        self.were_steps_thinned |= self.budget.thinned().has(Part::Steps);
        for change in std::mem::take(&mut self.changes) {
            self.tell(change)?;
        }
        let points = reading.map(|mut reading| {
            reading.points.extend(self.own_points());
            // Launches of graphs were missed, by which it is reckoned.
            reading.points.retain(|point| !self.were_steps_thinned || *point.series != nccl::VISIBLE_RATIO);
            reading.points
        });
        let sample = Sample { source: SOURCE.to_owned(), taken_boot_ns: clock::boot_ns(), points };
        self.send(Message::Sample(sample))
    }

    fn show(&self) {
        let absent = self.absent.clone();
        let thinned = self.thinned(self.budget.thinned()).map(|part| part.as_str().to_owned()).collect();
        self.orders.show(View { detail: self.attention.detail(), traced: self.attention.traced(), thinned, absent });
    }

    /// Parts that are wanted and given up.
    fn thinned(&self, thinned: Thinned) -> impl Iterator<Item = Part> + use<> {
        let attention = self.attention;
        Part::ALL.into_iter().filter(move |part| attention.whose(*part).is_some() && thinned.has(*part))
    }

    fn attach(&mut self) {
        let (attention, thinned) = (self.attention, self.budget.thinned());
        self.watch(move |part| attention.whose(part).filter(|_| !thinned.has(part)));
    }

    fn watch(&mut self, whose: impl Fn(Part) -> Option<Whose>) {
        if let Some(probes) = &mut self.probes
            && let Err(reason) = probes.attach(&self.found, &whose)
        {
            tracing::warn!(reason, "what is counted of CUDA's driver and NCCL is more or less than what is wanted");
        }
        let is_watched = |part| !self.found.is_empty() && whose(part).is_some();
        self.watched.turn(clock::boot_ns(), Part::ALL.map(is_watched));
    }

    /// What was counted, and what is given up because of it.
    fn read(&mut self, is_sample: bool) -> Result<Reading, String> {
        let Some(probes) = &mut self.probes else { return Ok(Reading::default()) };
        let libraries = &self.libraries;
        let reading = probes.account(libraries)?;
        let cost = |counted| probes.cost_ns(counted);
        self.costs = self.budget.observe(clock::boot_ns(), &reading.hits, cost, |pid| libraries.cpu_ns(pid));
        if let Some(change) = self.budget.decide(&self.costs, is_sample) {
            self.changes.push(change);
            self.attach();
        }
        Ok(reading)
    }

    /// Looks at all that is wanted for a moment, while the kernel times its programs. What was counted before was read.
    fn sample(&mut self) -> Result<Reading, String> {
        let attention = self.attention;
        self.watch(|part| attention.whose(part));
        let halt = self.halt.clone();
        let timed = self.probes.as_mut().map(|probes| {
            probes.time(|| {
                halt.wait(SAMPLE);
            })
        });
        if let Some(Err(reason)) = timed {
            tracing::warn!(
                reason,
                "the kernel does not time the programs of probes; what they take is taken to be as before"
            );
        }
        let reading = self.read(true);
        self.attach();
        reading
    }

    fn change(&mut self, change: &str) -> Result<(), Over> {
        self.budget.begin_anew();
        self.sampled_boot_ns = None;
        let text = format!("calls of CUDA's driver and NCCL: {change}");
        self.say(Finding::new("probes.detail", Severity::Low, "node".to_owned(), text))
    }

    fn tell(&self, Change { thinned, dearest }: Change) -> Result<(), Over> {
        let (pid, share) = dearest.unwrap_or_default();
        let name = process_name(&self.proc, pid);
        let budget = self.budget.share();
        let costs = match dearest {
            None => "no process calls what probes are at".to_owned(),
            Some(_) => format!(
                "probes of CUDA's driver and NCCL cost {name} ({pid}) {:.2} % of its CPU time, of {} % that they may",
                100.0 * share,
                100.0 * budget
            ),
        };
        let thinned: Vec<&str> = self.thinned(thinned).map(Part::as_str).collect();
        let becomes = match &*thinned {
            [] => "all that is wanted is looked at again".to_owned(),
            parts => format!("{} looked at for 1 s of each minute", parts.join(" and ")),
        };
        let mut finding =
            Finding::new("probes.budget", Severity::Low, "node".to_owned(), format!("{costs}: {becomes}"));
        finding.evidence = vec![("share_ratio".to_owned(), share), ("budget_ratio".to_owned(), budget)];
        finding.process = dearest.map(|(pid, _)| FoundProcess { pid, name });
        self.say(finding)
    }

    fn say(&self, finding: Finding) -> Result<(), Over> {
        let what = What::Finding(finding);
        self.send_event(Event { boot_ns: clock::boot_ns(), origin: None, task: None, what })
    }

    fn send_event(&self, event: Event) -> Result<(), Over> {
        if let What::Finding(finding) = &event.what {
            tracing::info!(kind = finding.kind, text = finding.text);
        }
        self.send(Message::Event(Box::new(event)))
    }

    fn send(&self, message: Message) -> Result<(), Over> {
        self.out.upgrade().ok_or(Over)?.blocking_send(message).map_err(|_| Over)
    }

    /// What NCCL says of itself, in one way or another.
    fn told_by_others(&self) -> Vec<Point> {
        self.logs.points().into_iter().chain(self.ras.points()).chain(self.inspector.points()).collect()
    }

    fn own_points(&self) -> Vec<Point> {
        let mut points = self.told_by_others();
        points.push(Point::new(&cuda::LOST_TOTAL, &["findings"], float(self.telling.withheld)));
        for cost in &self.costs {
            points.push(of_process(&cuda::PROBE_RATIO, cost.pid, &[], cost.share()));
            points.push(of_process(&cuda::PROBE_SECONDS_TOTAL, cost.pid, &[], float(cost.spent_ns) / 1e9));
        }
        for (part, watched_ns) in Part::ALL.into_iter().zip(self.watched.ns) {
            let is_thinned = self.thinned(self.budget.thinned()).any(|thinned| thinned == part);
            points.push(Point::new(&cuda::THINNED, &[part.as_str()], f64::from(u8::from(is_thinned))));
            points.push(Point::new(&cuda::WATCHED_SECONDS_TOTAL, &[part.as_str()], float(watched_ns) / 1e9));
        }
        points
    }
}

/// For how long each part was looked at.
#[derive(Debug, Default)]
struct Watched {
    ns: [u64; Part::ALL.len()],
    are: [bool; Part::ALL.len()],
    since_boot_ns: u64,
}

impl Watched {
    fn turn(&mut self, now_boot_ns: u64, are: [bool; Part::ALL.len()]) {
        let more_ns = now_boot_ns.saturating_sub(self.since_boot_ns);
        self.ns.iter_mut().zip(self.are).filter(|(_, is)| *is).for_each(|(ns, _)| *ns += more_ns);
        (self.are, self.since_boot_ns) = (are, now_boot_ns);
    }
}
