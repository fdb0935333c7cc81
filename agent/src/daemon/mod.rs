//! Putting the roles together. The GPU worker is a process of its own, kept by a thread; the sensor and the engines' scrapers
//! are tasks of this one, the core is a thread. This is the one place that decides so.

mod enforcement;
mod policies;
mod sensor;

use std::{
    collections::HashMap,
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use plumbline_audit::LogError;
use thiserror::Error;
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::{Notify, mpsc, watch},
};

pub use self::policies::explain;
use self::{policies::Loaded, sensor::Sensor};
use crate::{
    clock,
    config::Config,
    core::{Core, SharedStore, chain, lock},
    cost::{Ledger, LedgerFile},
    cuda,
    custody::{
        Custody, memory,
        opening::{self, OpenError},
        wall_clock::WallClock,
    },
    diagnose::Diagnosis,
    engines,
    event::{Event, Start, Stop, What},
    gpu,
    halt::Halt,
    holders::Holders,
    http::{self, Node, incident::Gate},
    identity::{World, procfs::Procfs},
    incident::Incident,
    infiniband, kubelet,
    message::Message,
    probes::{ProbesError, loss::account_ticker, sensor::pid_namespace},
    series::{Point, Sample, agent, kernel},
    ship,
    timeline::SharedTimeline,
    upkeep::Upkeep,
    verdict::{Rules, Throttles, WatchedPaths, enforce},
};

/// Messages between the roles. The sensor waits when it is full, and the kernel's ring holds what comes meanwhile.
const QUEUE_MESSAGES: usize = 4096;

/// How often the directories that policies name are looked for again: caches and homes appear.
const EXPAND_EVERY: Duration = Duration::from_secs(10);

/// How long open HTTP connections may take to end at a stop.
const HTTP_GRACE: Duration = Duration::from_secs(2);

/// This program, also when its file was replaced since it was started.
pub const OWN_PROGRAM: &str = "/proc/self/exe";

/// How often the core does what is due by time.
const CORE_TICK: Duration = Duration::from_millis(500);

/// Why the daemon does not run.
#[derive(Debug, Error)]
pub enum DaemonError {
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error(transparent)]
    Ship(#[from] ship::ShipStartError),
    #[error("the audit log could not be closed in order")]
    Close(#[source] LogError),
    #[error("cannot listen on {address}")]
    Listen { address: std::net::SocketAddr, source: io::Error },
    #[error("{0}")]
    Policies(String),
    #[error("the token of incidents cannot be used")]
    Token(#[source] io::Error),
    #[error("the configuration of the kernel programs is not valid")]
    Probes(#[source] ProbesError),
    #[error("nothing useful is left: no kernel program runs ({probes}), GPUs and engines are switched off")]
    Useless { probes: String },
    #[error("the operating system refused a thread or a signal handler")]
    System(#[source] io::Error),
}

/// Runs until SIGTERM or SIGINT.
pub async fn run(config: Config) -> Result<(), DaemonError> {
    let mut signals = Signals::new().map_err(DaemonError::System)?;
    // As far as can be said before a program is loaded, so that a mistake is told at once.
    let Loaded { policies, .. } = policies::load(&config, None, &enforce::this_kernel())?;
    let policies = Arc::new(policies);
    let node = config.node.clone().unwrap_or_else(hostname);
    let memory = memory::protect();
    let opened = opening::open(&config, &node, &policies)?;
    let vkey = opened.vkey.clone();
    let listener = match config.listen {
        Some(address) => Some(http::bind(address).await.map_err(|source| DaemonError::Listen { address, source })?),
        None => None,
    };

    let incident = Incident::default();
    let gate = Gate::new(incident.clone(), &config.incident).map_err(DaemonError::Token)?;
    let (stop_all, stop) = watch::channel(false);
    let (stop_shipping, shipping) = watch::channel(false);
    let (messages, inbox) = mpsc::channel(QUEUE_MESSAGES);
    let store = SharedStore::default();
    let mut sensor = Sensor::start(&config, &messages, &stop)?;
    let Loaded { policies: fitting, mut in_force } = policies::load(&config, Some(&policies), &sensor.profile())?;
    let policies = Arc::new(fitting);

    let keeping = opening::keeping(&config, &opened, memory);
    let said = opening::starting(
        &opened.recovery,
        sensor.hooks(),
        Start { coverage: sensor.coverage(), previous: opening::describe(&opened.recovery), keeping },
    );
    let mut world = World::with_resolvers(config.dns.resolvers.clone());
    let (pages, annotated) = watch::channel(Vec::new());
    let kubelet = config.kubelet.api.clone().map(|api| {
        let wanted = Arc::new(Notify::new());
        world.pods.ask_by(Arc::clone(&wanted));
        tokio::spawn(kubelet::run(api, wanted, pages, messages.clone(), stop.clone()))
    });
    let (held, held_seen) = watch::channel(Arc::default());
    let timeline = SharedTimeline::default();
    let ledger_file = LedgerFile::new(&config.state_dir, clock::boot_id());
    let core = Core {
        world,
        processes: Procfs::with_logs(config.kubelet.log_dir.clone()),
        rules: Rules::new(Arc::clone(&policies), WatchedPaths::new()),
        rules_before: None,
        denier: sensor.enforcement.as_ref().map(|enforcement| Arc::clone(&enforcement.denier)),
        recorder: opened.recorder,
        custody: Custody::new(opened.log, &config.audit, &ship::cursors(&config), Arc::clone(&store)),
        in_force: opened.in_force,
        ledger: ledger(&config, &ledger_file),
        ledger_file,
        timeline: Arc::clone(&timeline),
        store: Arc::clone(&store),
        wall_clock: WallClock::default(),
        throttles: Throttles::default(),
        last_match: HashMap::new(),
        diagnosis: Diagnosis::default(),
        holders: Holders::new(held),
        upkeep: Upkeep::new((std::process::id(), pid_namespace()), &config.state_dir),
        incident: incident.clone(),
        incident_by_findings: config.incident.by_findings,
    };
    let core = spawn_core(core, inbox, sensor.tasks(), said)?;
    // With the core at work, so that what this node does meanwhile cannot fill the queue before an answer.
    sensor.hatch(&config.state_dir);
    let watched = sensor.watch(&policies);
    sensor.self_test();
    let mut rules = sensor.rules(policies, watched);
    let prepared = sensor.prepare(&rules.policies).map_err(|why| DaemonError::Policies(format!("{why}\n")))?;
    let _ = messages.send(Message::Rules(Box::new(rules.clone()))).await;
    sensor.put_in_force(prepared);
    sensor.weigh(&mut in_force);
    say(&messages, What::Coverage(sensor.statement("start".to_owned()))).await;
    let coverage = sensor.coverage();

    let halt = Halt::at(stop.clone()).map_err(DaemonError::System)?;
    let gpu = config.gpu.enabled.then(|| {
        gpu::spawn(
            &config.gpu,
            Path::new(OWN_PROGRAM),
            (&node, &config.state_dir),
            incident.clone(),
            held_seen,
            messages.clone(),
            halt.clone(),
        )
    });
    let gpu = gpu.transpose().map_err(DaemonError::System)?;
    if gpu.is_none() {
        // Said once, so that the status shows why, and the ledger knows that the node is what costs.
        let points = Err("absent (switched off by the configuration)".to_owned());
        let off = Sample { source: gpu::SOURCE.to_owned(), taken_boot_ns: clock::boot_ns(), points };
        let _ = messages.send(Message::Sample(off)).await;
    }
    let engines = tokio::spawn(engines::run(
        config.engines.clone(),
        engines::Places { proc: PathBuf::from("/proc"), logs: config.kubelet.log_dir.clone(), annotated },
        incident.clone(),
        messages.clone(),
        stop.clone(),
    ));
    let pod_resources =
        config.kubelet.pod_resources.clone().map(|pod_resources| {
            tokio::spawn(kubelet::pod_resources::run(pod_resources, messages.clone(), stop.clone()))
        });
    let cuda = cuda::spawn(&config.cuda, &messages, halt.clone()).map_err(DaemonError::System)?;
    infiniband::spawn(&messages, halt).map_err(DaemonError::System)?;
    let ship = ship::start(&config, &store, &node, &vkey, &shipping)?;
    let node = Node {
        node,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        log_dir: config.log_dir().display().to_string(),
        vkey: vkey.to_string(),
        coverage,
        watched: paths(&rules.watched),
        policy_digest: rules.policies.digest().to_owned(),
        policy_generation: rules.policies.generation(),
        policies: in_force,
    };
    publish_fixed(&store, &sensor);
    sensor.publish_hooks(&store);
    let (node, node_seen) = watch::channel(node);
    let gpus = gpu.as_ref().map_or_else(gpu::View::off, |gpu| gpu.view.clone());
    let sources = http::Sources { store: Arc::clone(&store), timeline, node: node_seen, gpus, gate, cuda };
    let http = listener.map(|listener| tokio::spawn(http::serve(listener, sources, stop.clone())));
    if let Some(address) = config.listen {
        tracing::info!(%address, "serving /metrics");
    }

    let reason = watch_over(&config, &mut signals, &mut sensor, &messages, &mut rules, &store, &node).await;
    tracing::info!(reason, "stopping");
    let _ = stop_all.send(true);
    let stopped = Event { boot_ns: clock::boot_ns(), origin: None, task: None, what: What::Stop(Stop { reason }) };
    // The core ends when every sender is gone; what is in the queue is recorded first, and the stop last.
    let _ = engines.await;
    for asking in [kubelet, pod_resources].into_iter().flatten() {
        let _ = asking.await;
    }
    if let Some(gpu) = gpu {
        let _ = tokio::task::spawn_blocking(move || gpu.join()).await;
    }
    for event in sensor.finish(&store).await {
        let _ = messages.send(Message::Event(Box::new(event))).await;
    }
    let _ = messages.send(Message::Event(Box::new(stopped))).await;
    drop(messages);
    if let Some(mut http) = http {
        // A client that never ends its request must not keep the daemon.
        if tokio::time::timeout(HTTP_GRACE, &mut http).await.is_err() {
            http.abort();
        }
    }
    let ended = tokio::task::spawn_blocking(move || core.join()).await;
    // Last, so that the stop and the closing checkpoint leave too.
    let _ = stop_shipping.send(true);
    if let Some(ship) = ship {
        let _ = tokio::task::spawn_blocking(move || ship.join()).await;
    }
    match ended {
        Ok(Ok(Err(error))) => Err(DaemonError::Close(error)),
        _ => Ok(()),
    }
}

/// Everything that recurs until a signal ends it: losses, reloads, new directories. Returns why it ended.
async fn watch_over(
    config: &Config,
    signals: &mut Signals,
    sensor: &mut Sensor,
    messages: &mpsc::Sender<Message>,
    rules: &mut Rules,
    store: &SharedStore,
    node: &watch::Sender<Node>,
) -> String {
    let mut account = account_ticker();
    let mut expand = tokio::time::interval(EXPAND_EVERY);
    let mut findings = sensor.sings();
    loop {
        let mut in_force = None;
        let renewed = tokio::select! {
            _ = signals.terminate.recv() => return "SIGTERM".to_owned(),
            _ = signals.interrupt.recv() => return "SIGINT".to_owned(),
            _ = account.tick() => {
                let losses = sensor.account(store);
                let healing = sensor.heal(&losses);
                for message in losses.into_iter().map(|loss| Message::Event(Box::new(loss))).chain(healing) {
                    let _ = messages.send(message).await;
                }
                continue;
            }
            Some(finding) = findings.recv() => {
                let hooks = sensor.hooks();
                let changed = match finding {
                    Ok(finding) => sensor.heard(&finding),
                    Err(error) => sensor.mute(&error),
                };
                if let Some(statement) = changed {
                    sensor.publish_hooks(store);
                    node.send_modify(|node| node.coverage = sensor.coverage());
                    say(messages, What::Coverage(statement)).await;
                    for hook in sensor.hooks().into_iter().filter(|hook| !hooks.contains(hook)) {
                        say(messages, What::Hook(hook)).await;
                    }
                }
                continue;
            }
            _ = signals.hangup.recv() => match policies::load(config, Some(&rules.policies), &sensor.profile()) {
                Ok(loaded) => {
                    in_force = Some(loaded.in_force);
                    Arc::new(loaded.policies.following(&rules.policies))
                }
                Err(error) => {
                    tracing::error!(error = %chain(&error), "the policies are not valid; the last good ones stay in force");
                    continue;
                }
            },
            _ = expand.tick() => Arc::clone(&rules.policies),
        };
        let same_policies = renewed.digest() == rules.policies.digest();
        let lost_before = sensor.lost_sight_of.len();
        if !same_policies {
            // What either names, until one of them is in force alone.
            let both = sensor.watch_both(&renewed, &rules.policies);
            let (watched, prepared) = match both.and_then(|both| Ok((both, sensor.prepare(&renewed)?))) {
                Ok(ready) => ready,
                Err(error) => {
                    tracing::error!(error, "the policies cannot be in force; the last good ones stay");
                    sensor.watch(&rules.policies);
                    continue;
                }
            };
            // The core hears of them before the first event of theirs.
            *rules = sensor.rules(Arc::clone(&renewed), watched);
            let _ = messages.send(Message::Rules(Box::new(rules.clone()))).await;
            sensor.put_in_force(prepared);
            sensor.weigh(in_force.as_deref_mut().unwrap_or_default());
            tracing::info!(digest = renewed.digest(), generation = renewed.generation(), "policies are in force");
        }
        let watched = sensor.watch(&renewed);
        let same_sight = sensor.lost_sight_of.len() == lost_before;
        if same_policies && same_sight && watched == rules.watched {
            continue;
        }
        if watched != rules.watched {
            *rules = sensor.rules(Arc::clone(&renewed), watched);
            let _ = messages.send(Message::Rules(Box::new(rules.clone()))).await;
        }
        say(messages, What::Coverage(sensor.statement("the watched directories".to_owned()))).await;
        let shown = paths(&rules.watched);
        lock(store).set(watched_directories(shown.len()));
        node.send_modify(|node| {
            node.watched = shown;
            node.policy_digest = renewed.digest().to_owned();
            node.policy_generation = renewed.generation();
            node.policies = in_force.unwrap_or_else(|| std::mem::take(&mut node.policies));
        });
    }
}

/// Something that the daemon itself has to say.
async fn say(messages: &mpsc::Sender<Message>, what: What) {
    let event = Event { boot_ns: clock::boot_ns(), origin: None, task: None, what };
    // The core ends after every sender.
    let _ = messages.send(Message::Event(Box::new(event))).await;
}

/// Listened to from the first moment on, so that none ends the daemon without its stop record.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }
}

/// The core on a thread and a runtime of its own, so that its disk waits stop nobody else.
fn spawn_core(
    mut core: Core<Procfs>,
    mut inbox: mpsc::Receiver<Message>,
    tasks: Vec<crate::event::Task>,
    said: Vec<What>,
) -> Result<std::thread::JoinHandle<Result<(), LogError>>, DaemonError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().map_err(DaemonError::System)?;
    let run = move || {
        runtime.block_on(async {
            core.world.seed(&tasks, &core.processes);
            for what in said {
                let event = Event { boot_ns: clock::boot_ns(), origin: None, task: None, what };
                core.handle(Message::Event(Box::new(event)));
            }
            // What began is published at once: whoever keeps checkpoints sees the start.
            core.custody.checkpoint();
            let mut tick = tokio::time::interval(CORE_TICK);
            loop {
                let due = core.due_in();
                tokio::select! {
                    message = inbox.recv() => match message {
                        Some(message) => {
                            core.handle(message);
                            core.settle(!inbox.is_empty());
                        }
                        None => break,
                    },
                    () = tokio::time::sleep(due.unwrap_or_default()), if due.is_some() => core.settle(false),
                    _ = tick.tick() => core.tick(),
                }
            }
            core.tick();
            core.close()
        })
    };
    std::thread::Builder::new().name("core".to_owned()).spawn(run).map_err(DaemonError::System)
}

/// The one that was kept, or a new one.
fn ledger(config: &Config, file: &LedgerFile) -> Ledger {
    let kept = file.read(config.prices.as_ref(), clock::boot_ns()).unwrap_or_else(|error| {
        tracing::warn!(reason = chain(&error), "the ledger of costs begins anew");
        None
    });
    let ledger = kept.unwrap_or_else(|| Ledger::new(config.prices.clone()));
    if config.gpu.enabled { ledger } else { ledger.without_gpus() }
}

/// Values that stay as they are until the daemon ends.
fn publish_fixed(store: &SharedStore, sensor: &Sensor) {
    let mut store = lock(store);
    #[expect(clippy::cast_precision_loss, reason = "a start time needs no nanoseconds")]
    let now_seconds = clock::unix_ns() as f64 / 1e9;
    store.set(Point::new(&agent::START_TIME, &[], now_seconds));
    store.set(Point::new(&agent::BUILD_INFO, &[env!("CARGO_PKG_VERSION"), &opening::build_digest()], 1.0));
    store.set(watched_directories(sensor.watched.len()));
}

fn watched_directories(count: usize) -> Point {
    Point::new(&kernel::WATCHED_DIRECTORIES, &[], f64::from(u32::try_from(count).unwrap_or(u32::MAX)))
}

fn paths(watched: &WatchedPaths) -> Vec<String> {
    watched.iter().map(|(_, path)| path.display().to_string()).collect()
}

/// The host's name; `localhost` where it has none.
pub fn hostname() -> String {
    let name = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let name = name.trim();
    if name.is_empty() || name == "(none)" { "localhost".to_owned() } else { name.to_owned() }
}
