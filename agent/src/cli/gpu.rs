//! `plumbline gpu`: the GPUs, what they do not tell and why; and letting go of them.

use std::{
    collections::BTreeMap,
    error::Error,
    path::{Path, PathBuf},
    process::ExitCode,
    thread,
    time::{Duration, Instant},
};

use super::{ConfigFile, daemon::DaemonArguments, failed, say, span::Span};
use crate::{
    clock,
    config::Config,
    daemon::OWN_PROGRAM,
    gpu::{
        self, GpuView, Refusal, Rhythm, State, View, XidCount,
        release::{Release, ReleaseFiles},
    },
    review::time::rfc3339_ms,
};

/// How long `release` waits until the devices are let go.
const RELEASE_PATIENCE: Duration = Duration::from_secs(15);

#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(super) struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    list: ListArguments,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Let go of all GPUs, so that a driver can be upgraded, a GPU reset or MIG changed
    Release(ReleaseArguments),
    /// Read the GPUs again
    Resume(ResumeArguments),
}

#[derive(Debug, clap::Args)]
struct ListArguments {
    #[command(flatten)]
    daemon: DaemonArguments,
    /// Ask the driver, without the daemon
    #[arg(long, conflicts_with = "listen")]
    direct: bool,
    /// Name each question that is not answered, and on which GPU
    #[arg(long)]
    all: bool,
    /// Print the answer as it is
    #[arg(long, conflicts_with = "all")]
    json: bool,
}

#[derive(Debug, clap::Args)]
struct ReleaseArguments {
    #[command(flatten)]
    config: ConfigFile,
    /// Take them back by itself after so long, such as 30m [default: at `plumbline gpu resume`]
    #[arg(long = "for", value_name = "SPAN")]
    span: Option<Span>,
    /// Why, for those who wonder
    #[arg(long, value_name = "TEXT", default_value = "")]
    why: String,
}

#[derive(Debug, clap::Args)]
struct ResumeArguments {
    #[command(flatten)]
    config: ConfigFile,
}

/// What the daemon starts its GPU worker with.
#[derive(Debug, clap::Args)]
pub(super) struct WorkerArguments {
    #[arg(long)]
    library: PathBuf,
    #[arg(long)]
    light_ms: u64,
    #[arg(long)]
    full_ms: u64,
}

pub(super) fn work(arguments: &WorkerArguments) -> ExitCode {
    let WorkerArguments { library, light_ms, full_ms } = arguments;
    gpu::work(library, Rhythm { light_ms: *light_ms, full_ms: *full_ms })
}

pub(super) fn main(arguments: &Arguments) -> ExitCode {
    let outcome = match &arguments.command {
        None => list(&arguments.list),
        Some(Command::Release(arguments)) => release(arguments),
        Some(Command::Resume(arguments)) => resume(arguments),
    };
    outcome.unwrap_or_else(|error| failed(error.as_ref()))
}

type Outcome = Result<ExitCode, Box<dyn Error>>;

fn list(arguments: &ListArguments) -> Outcome {
    let view = if arguments.direct {
        let config = arguments.daemon.config()?;
        gpu::look(&config.gpu, Path::new(OWN_PROGRAM), &config.state_dir)?
    } else {
        let daemon = arguments.daemon.daemon()?;
        let body =
            daemon.ask("/api/v1/gpu").map_err(|error| format!("{error}; --direct asks the driver without it"))?;
        serde_json::from_str(&body)?
    };
    if arguments.json {
        say(&serde_json::to_string_pretty(&view)?);
    } else {
        show(&view, arguments.all);
    }
    Ok(ExitCode::SUCCESS)
}

fn show(view: &View, all: bool) {
    let pid = view.worker_pid.map(|pid| format!(" (pid {pid})")).unwrap_or_default();
    let driver = view.driver.as_ref().map(|driver| format!(", driver {driver}")).unwrap_or_default();
    say(&format!("worker    {}{pid}{driver}, {} profile", view.worker, view.profile));
    if let Some(reason) = &view.reason {
        say(&format!("absent    {reason}"));
    }
    for pid in &view.stuck_pids {
        say(&format!("stuck     a worker that was killed (pid {pid}) does not end: the driver holds it"));
    }
    if view.unnamed > 0 {
        say(&format!("unnamed   {} more that the driver lists have not said who they are", view.unnamed));
    }
    for gpu in &view.gpus {
        let GpuView { identity, state, age_seconds, series, holders, refusals } = gpu;
        let simulated = if identity.is_simulated { " (simulated)" } else { "" };
        say(&format!("{:<9} {} {}{simulated}", format!("gpu {}", identity.index), identity.name, identity.uuid));
        let device = identity.minor.map(|minor| format!(", /dev/nvidia{minor}")).unwrap_or_default();
        say(&format!("          {}{device}", identity.pci_bus_id));
        say(&format!(
            "          {}, answered {age_seconds:.1} s ago: {series} numbers, {} questions not answered",
            state_words(state),
            refusals.len()
        ));
        for holder in holders {
            say(&format!("          held by {holder}"));
        }
    }
    for XidCount { uuid, xid, nvml, kernel_log } in &view.xids {
        let words = xid.parse().map_or("", |xid| gpu::xid_words(xid));
        say(&format!("xid {xid:<5} {uuid}: {nvml} told by NVML, {kernel_log} by the kernel's log; {words}"));
    }
    if let Some(reason) = &view.no_kernel_log {
        say(&format!("absent    the kernel's log, which says whose XIDs are: {reason}"));
    }
    if let Some(reason) = &view.no_events {
        say(&format!("absent    XIDs from NVML: {reason}"));
    }
    not_answered(view, all);
}

fn state_words(state: &State) -> String {
    match state {
        State::Listed => "listed".to_owned(),
        State::Up => "up".to_owned(),
        State::Silent => "SILENT".to_owned(),
        State::Lost => "LOST".to_owned(),
        State::NotAsked(reason) => format!("not asked ({reason})"),
    }
}

/// By reason, and with `all` by question.
fn not_answered(view: &View, all: bool) {
    let mut by_reason: BTreeMap<&str, BTreeMap<&str, (&Refusal, Vec<u32>)>> = BTreeMap::new();
    for gpu in &view.gpus {
        for refusal in &*gpu.refusals {
            let of_reason = by_reason.entry(&refusal.reason).or_default();
            let (_, gpus) = of_reason.entry(&refusal.question).or_insert_with(|| (refusal, Vec::new()));
            gpus.push(gpu.identity.index);
        }
    }
    if by_reason.is_empty() {
        return;
    }
    say("\nNOT ANSWERED  (docs/gpu-series.md tells which series each question is)");
    for (reason, questions) in by_reason {
        if !all {
            say(&format!("  {:>3} questions: {reason}", questions.len()));
            continue;
        }
        say(&format!("  {reason}"));
        for (question, (refusal, gpus)) in questions {
            let gpus: Vec<String> = gpus.iter().map(u32::to_string).collect();
            say(&format!("    {question}"));
            say(&format!(
                "      gpu {}; answered by: {}; absent: {}",
                gpus.join(", "),
                refusal.hardware,
                refusal.series.join(", ")
            ));
        }
    }
}

/// For `plumbline doctor`: how many GPUs of which name there are, and how much they do not tell.
pub(super) fn summary(view: &View) -> Vec<String> {
    let mut names: Vec<&str> = view.gpus.iter().map(|gpu| gpu.identity.name.as_str()).collect();
    names.dedup();
    let count = if view.gpus.len() == 1 { "1 GPU".to_owned() } else { format!("{} GPUs", view.gpus.len()) };
    let is_simulated = view.gpus.iter().any(|gpu| gpu.identity.is_simulated);
    let simulated = if is_simulated { " (simulated)" } else { "" };
    let driver = view.driver.as_deref().unwrap_or("unknown");
    let mut lines = vec![format!("{count}: {}, driver {driver}{simulated}", names.join(", "))];
    if view.unnamed > 0 {
        lines.push(format!("{} more that the driver lists have not said who they are", view.unnamed));
    }
    for gpu in view.gpus.iter().filter(|gpu| gpu.state != State::Up) {
        lines.push(format!("gpu {} {}: {}", gpu.identity.index, gpu.identity.uuid, state_words(&gpu.state)));
    }
    let most = view.gpus.iter().map(|gpu| gpu.refusals.len()).max().unwrap_or(0);
    if most > 0 {
        lines.push(format!(
            "not seen: {most} questions are not answered; `plumbline gpu --all` names them and the reasons"
        ));
    }
    lines
}

fn release(arguments: &ReleaseArguments) -> Outcome {
    let (config, _) = Config::load(arguments.config.config.as_deref())?;
    let files = ReleaseFiles::new(&config.state_dir);
    let now_unix_seconds = clock::unix_ns() / 1_000_000_000;
    let until_unix_seconds = arguments.span.map(|Span(span)| now_unix_seconds + span.as_secs().max(1));
    let release =
        Release { until_unix_seconds, by_uid: rustix::process::getuid().as_raw(), why: arguments.why.clone() };
    files.release(&release).map_err(|error| format!("{}: {error}", config.state_dir.display()))?;
    let began = Instant::now();
    while files.is_held()? {
        if began.elapsed() >= RELEASE_PATIENCE {
            eprintln!(
                "plumbline: the GPUs are not let go of yet: the worker is stuck in the driver (`plumbline gpu` says which), or \
                 no daemon with this state directory runs that could end it"
            );
            return Ok(ExitCode::FAILURE);
        }
        thread::sleep(Duration::from_millis(50));
    }
    match until_unix_seconds {
        Some(until) => say(&format!("released until {}", rfc3339_ms(until * 1000))),
        None => say("released until `plumbline gpu resume`"),
    }
    Ok(ExitCode::SUCCESS)
}

fn resume(arguments: &ResumeArguments) -> Outcome {
    let (config, _) = Config::load(arguments.config.config.as_deref())?;
    let files = ReleaseFiles::new(&config.state_dir);
    let resumed = files.resume().map_err(|error| format!("{}: {error}", config.state_dir.display()))?;
    say(if resumed { "resumed" } else { "nothing was released" });
    Ok(ExitCode::SUCCESS)
}
