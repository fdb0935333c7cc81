//! The spine, end to end, with the real daemon: kernel events to signed records, sources to series, faults to words.

mod cuda;
mod deny;
mod devices;
mod disk;
mod engines;
mod evidence;
mod faults;
mod gpus;
mod graph_launches;
mod holders;
mod journald;
mod kinds;
mod many_policies;
mod many_processes;
mod names;
mod nccl;
mod pods;
mod policies;
mod ras;
mod review;
mod ship;
mod sight;
mod sources;

use std::{
    fs,
    os::unix::ffi::OsStrExt as _,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::Value;

use crate::{
    caller::Caller,
    checks::Ended,
    daemon::{Daemon, Tools, run},
    fake_engine::FakeEngine,
};

/// Quiet sources, so that a check sees only what it is about.
const QUIET: &str = "gpu: {enabled: false}\nengines: {discover: false}\n";

/// One check: its sentence, and what runs it. `Err(Ended::Skipped)` needs a reason.
type Check = (&'static str, fn(&Tools, &Path) -> Result<(), Ended>);

const CHECKS: &[Check] = &[
    ("a read of the weights becomes a signed policy event with lineage, path and inode", evidence::a_read_is_recorded),
    ("a read through a hugging face cache names the model it claims to be", evidence::a_cache_read_names_the_model),
    ("a name that is not utf-8 is kept exactly and shown safely", evidence::a_hostile_name_is_kept),
    ("a process in a container's cgroup is recorded with its container", pods::a_container_is_named),
    ("the kubelet tells labels of pods and names of containers", pods::the_kubelet_tells_labels),
    (
        "a kubelet that refuses or cannot prove itself is said, and who cannot prove itself gets no token",
        pods::a_kubelet_that_does_not_answer_is_said,
    ),
    ("engines are shown, and a page of one is explained", engines::engines_are_shown_and_explained),
    ("the parser reads what prometheus' own parser reads, of pages that nobody wrote", engines::a_peer_reads_the_same),
    ("engines behind tls, on a unix socket and in a pod are read", engines::engines_are_reached_in_every_way),
    ("what ends the work of a gpu is an alert with its severity", gpus::what_ends_the_work_of_a_gpu_is_an_alert),
    ("who has which gpu is told as the kubelet and the processes tell it", holders::who_has_which_gpu_is_told),
    (
        "a connection from one network namespace to another is a policy event",
        evidence::a_forbidden_connection_is_recorded,
    ),
    (
        "a connection says by which name its address was asked for, and policies go by it",
        names::connections_say_their_names,
    ),
    (
        "weights read by one process of a tree and a connection by another are one event with both halves",
        evidence::a_reader_that_connects_is_recorded,
    ),
    (
        "who has read weights and connects to a local socket is recorded, a stranger is not",
        evidence::a_reader_at_a_local_socket_is_recorded,
    ),
    ("an allow-listed program is recorded without an alert", evidence::an_allowed_read_is_no_alert),
    ("one flipped byte is found and placed, by our verifier and by one in python", evidence::a_flipped_byte_is_placed),
    ("a killed daemon recovers its log and says so", faults::a_killed_daemon_recovers),
    ("what became of processes while their lives were lost is read anew", faults::lost_lives_are_read_anew),
    ("a full disk is loud, loses nothing silently and breaks nothing", faults::a_full_disk_is_declared),
    (
        "a writer killed at random points loses nothing durable and raises no alarm",
        disk::a_writer_killed_at_random_points,
    ),
    ("a real disk that fills up has room for the last words", disk::a_real_disk_fills_up),
    ("a stop while the disk is full tells what was lost", disk::a_stop_while_the_disk_is_full),
    ("a disk that becomes read-only is declared and gone on with", disk::a_disk_becomes_read_only),
    ("flushes that fail for a while lose nothing", disk::flushes_fail_for_a_while),
    (
        "policies are listed with their matches, explained by record, and learned from what was seen",
        policies::listed_explained_learned,
    ),
    ("the commands work on the shipped policies and on two hundred generated ones", many_policies::the_commands_work),
    ("a policy that cannot be enforced is refused, or monitors and says so", policies::what_cannot_be_enforced),
    (
        "a process within a policy's subject is killed, a neighbour and a monitored one are not",
        policies::who_may_be_killed_is,
    ),
    ("a denied connection fails with eperm and is recorded, a neighbour's does not", deny::a_denied_connection_fails),
    ("a denied open fails with eperm and is recorded, a neighbour's does not", deny::a_denied_open_fails),
    ("a name in a mount namespace of one's own excuses nobody", deny::a_name_of_ones_own_excuses_nobody),
    ("switching between monitor and enforce under load loses no event and leaves no gap", deny::switching_under_load),
    ("whoever touches the daemon's own log is told, the daemon itself is not", policies::tampering_is_told),
    ("alerts of the same are told once in a while and recorded each", policies::the_same_is_told_once),
    ("a gpu that falls off the bus is a finding that a policy alerts on", policies::a_lost_gpu_is_an_alert),
    (
        "the schema for editors takes the shipped policies and refuses what the checker does",
        policies::the_schema_is_one,
    ),
    ("a policy mistake keeps the last good set, and prevents a start", faults::a_policy_mistake_is_shown),
    (
        "every record of a run that does what a daemon can be made to do is valid ocsf 1.8.0",
        kinds::a_whole_run_is_valid_ocsf,
    ),
    ("a record of every kind of event is valid ocsf 1.8.0", kinds::every_kind_is_valid_ocsf),
    ("every command of a reviewer works while the daemon writes", review::every_command_works_while_the_daemon_writes),
    (
        "a receiver that is down, answers half, or twice gets every alert",
        ship::receivers_that_misbehave_get_every_alert,
    ),
    ("a witness signs what continues, and shows a rollback", ship::a_witness_shows_a_rollback),
    ("the log says from the start what is seen and what is not", sight::the_start_says_what_is_seen),
    (
        "a watched directory that is renamed stays watched, and the log says so",
        sight::a_renamed_directory_stays_watched,
    ),
    ("a program that is taken away is noticed within 30 seconds", sight::a_detached_program_is_noticed),
    ("promtool accepts the page", sources::promtool_accepts_the_page),
    ("calls of cuda's driver are counted exactly, by process, device and call", cuda::calls_are_counted_exactly),
    ("a process's device is the GPU that the driver or NVML says", devices::a_device_is_the_gpu_that_somebody_says),
    (
        "the script that compares a real driver's calls with the page does so",
        cuda::the_script_for_real_drivers_compares,
    ),
    ("a library is looked at soon after it is loaded", cuda::a_library_is_looked_at_soon_after_it_is_loaded),
    (
        "what nccl's ras knows is asked for where it listens, in a network namespace of its own",
        ras::what_ras_knows_is_asked_for,
    ),
    ("what nccl warns of in a log is told once and counted", nccl::warnings_in_a_log_are_told),
    ("what nccl warns of in journald is told once and counted", journald::warnings_in_the_journal_are_told),
    ("a library in a layer of two containers is counted once", nccl::a_layer_of_two_containers_is_counted_once),
    ("nccl inside of an executable is counted", nccl::nccl_inside_of_an_executable_is_counted),
    ("calls of nvidia's own libraries are counted exactly, without a gpu", nccl::real_libraries_are_counted_exactly),
    ("what one process calls is traced for a while", cuda::a_process_is_traced_for_a_while),
    (
        "probes that cost a process too much are thinned, and a command says how much is looked at",
        cuda::probes_are_kept_within_their_budget,
    ),
    (
        "ten thousand processes that load the driver are counted exactly, and forgotten",
        many_processes::ten_thousand_are_counted,
    ),
    (
        "a process that has the number of one that ended is counted for itself",
        many_processes::a_number_that_is_used_again_is_another_process,
    ),
    ("who of a communicator came last is told as it was, to 50 microseconds", nccl::who_came_last_is_told),
    (
        "who launches a graph late is told, of ranks whose collectives are in graphs",
        graph_launches::who_launches_late_is_told,
    ),
    ("what is split off a communicator has nccl's own hash and ranks", nccl::what_is_split_off_is_known),
    (
        "the price per token agrees with a calculation by hand to one percent, also over a restart",
        sources::the_price_is_right,
    ),
    ("a real llama.cpp is found, priced, and seen opening its weights", sources::a_real_llama),
    ("an engine that is down is absent and counted, and disturbs nobody", faults::a_dead_engine_is_absent),
    ("a simulated gpu is labelled as simulated", gpus::a_simulated_gpu_says_so),
    ("an incident is asked for by command, recorded, and over", gpus::an_incident_is_asked_for_recorded_and_over),
    ("a page of gpus is compared with nvidia-smi value by value", gpus::a_page_is_compared_with_nvidia_smi),
    ("without a driver the gpu is absent with a reason", gpus::an_absent_gpu_has_a_reason),
    ("without privileges the daemon says what is missing and serves the rest", faults::no_privileges),
    ("a kernel without type information is told, and the rest is served", faults::no_btf),
    ("by otlp every series and every record reach a receiver that was down at first", sources::otlp_reaches_a_receiver),
];

/// Runs every check in a directory of its own.
pub fn run_all(tools: &Tools, scratch: &Path, only: Option<&str>, told: &mut dyn FnMut(&str, Ended)) {
    for (number, (name, check)) in CHECKS.iter().enumerate() {
        if only.is_some_and(|only| !name.contains(only)) {
            continue;
        }
        let ended = check(tools, &scratch.join(number.to_string())).map_or_else(|ended| ended, |()| Ended::Ok);
        told(name, ended);
    }
}

/// A daemon with one watched directory of its own.
struct Spine {
    daemon: Daemon,
    models: PathBuf,
    scratch: PathBuf,
}

impl Spine {
    fn start(tools: &Tools, scratch: &Path) -> Result<Self, Ended> {
        Self::start_with(tools, scratch, QUIET)
    }

    fn start_with(tools: &Tools, scratch: &Path, config: &str) -> Result<Self, Ended> {
        Self::start_in(tools, scratch, config, &[])
    }

    fn start_in(tools: &Tools, scratch: &Path, config: &str, env: &[(&str, &str)]) -> Result<Self, Ended> {
        let models = scratch.join("models");
        let policies = scratch.join("policies");
        fs::create_dir_all(&models).and_then(|()| fs::create_dir_all(&policies)).map_err(not_ok)?;
        fs::write(policies.join("weights.yaml"), weights_policy(&models)).map_err(not_ok)?;
        for shipped in ["lists.yaml", "egress.yaml"] {
            fs::copy(tools.scripts.join("../policies").join(shipped), policies.join(shipped)).map_err(not_ok)?;
        }
        let config = format!("policies: {}\n{config}", policies.display());
        let daemon = Daemon::start_with(tools, scratch, &config, env).map_err(Ended::NotOk)?;
        daemon.wait_for("plumbline_watched_directories", |count| count >= 1.0).map_err(Ended::NotOk)?;
        Ok(Self { daemon, models, scratch: scratch.to_owned() })
    }

    /// The record of an open of `path`, matched exactly.
    fn open_of(&self, path: &Path) -> Result<Value, String> {
        let shown = String::from_utf8_lossy(path.as_os_str().as_bytes()).into_owned();
        self.daemon.wait_for_record(&format!("an open of {shown}"), |record| {
            record["class_uid"] == 1001 && record["file"]["path"] == shown.as_str()
        })
    }
}

fn weights_policy(models: &Path) -> String {
    let models = models.display();
    format!(
        "apiVersion: plumbline/v1\nkind: Policy\nmetadata: {{name: weights}}\nspec:\n  rules:\n    - name: stranger\n      \
         severity: high\n      effect: alert\n      message: \"{{comm}} opened {{path}}\"\n      match:\n        file: {{watch: [{models}], \
         access: [open]}}\n      except:\n        - exe: [\"{models}/../bin/llama-server\", \"/usr/lib/plumbline-test/llama-server\"]\n"
    )
    .replace("/models/../bin", "/bin")
}

fn not_ok(error: impl std::fmt::Display) -> Ended {
    Ended::NotOk(error.to_string())
}

/// A process that calls a library as it is told.
fn caller(tools: &Tools, program: &'static str, library: &Path) -> Result<Caller, Ended> {
    let path = tools.beside(program).ok_or_else(|| skipped(&format!("{program} is not built")))?;
    Ok(Caller::start(program, &path, library)?)
}

/// A library that was built beside this program, at the path by whose name it is known.
fn library(tools: &Tools, built: &str, path: PathBuf) -> Result<PathBuf, Ended> {
    let built = tools.beside(built).ok_or_else(|| skipped(&format!("{built} is not built")))?;
    path.parent().map_or(Ok(()), fs::create_dir_all).and_then(|()| fs::copy(built, &path)).map_err(not_ok)?;
    Ok(path)
}

fn skipped(why: &str) -> Ended {
    Ended::Skipped(why.to_owned())
}

fn ensure(holds: bool, what: impl Fn() -> String) -> Result<(), Ended> {
    if holds { Ok(()) } else { Err(Ended::NotOk(what())) }
}

fn equal(what: &str, found: &Value, expected: impl Into<Value>) -> Result<(), Ended> {
    let expected = expected.into();
    ensure(*found == expected, || format!("{what}: found {found}, expected {expected}"))
}

/// What our verifier and the one in Python say.
fn verdict(tools: &Tools, log: &Path, vkey: &Path, code: i32, says: &str) -> Result<(), Ended> {
    let ours = run(Command::new(&tools.plumbline).args(["audit", "verify"]).arg(log).arg("--key").arg(vkey));
    let ours = ours.map_err(not_ok)?;
    let said = String::from_utf8_lossy(&ours.stdout).into_owned();
    ensure(ours.status.code() == Some(code) && said.contains(says), || {
        format!("exit {:?}: {said}", ours.status.code())
    })?;
    let Some(python) = &tools.python else {
        return Err(skipped("no Python with `cryptography` (PLUMBLINE_PYTHON); our own verifier agreed"));
    };
    let key = fs::read_to_string(vkey).map_err(not_ok)?;
    let theirs = run(Command::new(python).arg(tools.scripts.join("verify_log.py")).arg(log).arg(key.trim()));
    let theirs = theirs.map_err(not_ok)?;
    ensure(theirs.status.code() == Some(code), || {
        format!("python: exit {:?}: {}", theirs.status.code(), String::from_utf8_lossy(&theirs.stdout))
    })
}

fn priced(engine: &FakeEngine) -> String {
    format!(
        "gpu: {{enabled: false}}\nprices: {{currency: EUR, node_per_hour: 3.6}}\nengines:\n  discover: false\n  targets:\n    - name: \
         fake\n      url: http://{}/metrics\n      dialect: llamacpp\n      interval: 250ms\n",
        engine.address
    )
}

fn wait_until(mut done: impl FnMut() -> bool, what: &str) -> Result<(), Ended> {
    for _ in 0..200 {
        if done() {
            return Ok(());
        }
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
    Err(not_ok(what))
}
