//! Every kind of event, by a run of the daemon where one can be provoked and by the recorder itself for all, against
//! the schema of OCSF.

use std::{
    fs,
    net::IpAddr,
    path::Path,
    process::Command,
    sync::{Arc, Mutex},
    time::Duration,
};

use plumbline::{
    custody::keeper::{DaemonKeeper, InForce},
    event::{
        BpfAccess, BpfHow, BpfKind, Change, ClockStep, Connect, ConnectEnd, ConnectHow, Coverage, CoverageStatement,
        DeviceKind, DeviceOpen, Disk, DiskState, Event, Exec, Exit, FileChange, FileKey, FileOpen, FileRead, Finding,
        Fork, FoundHolder, FoundProcess, Gap, Hook, LocalConnect, Loss, MemoryAccess, MemoryHow, NetNs, Origin,
        Outcome, Policies, Protocol, Sight, SocketOpen, Start, Stop, Task, Told, What,
    },
    identity::{
        Identity, Process, Who,
        dns::{Known, Resolved, State, Told as Answer},
        pod::Pod,
        tree::{HasRead, MAX_FILES, Taken},
    },
    record::{Moment, Recorder},
};
use plumbline_audit::{Log, Options, SigningKey, Statement, statement};
use plumbline_policy::Severity;

use super::{QUIET, Spine, ensure, not_ok, skipped};
use crate::{
    checks::Ended,
    daemon::{Tools, records, run, run_with},
};

/// Whether this kind needs an example; a new kind does not compile before it says so here.
fn is_recorded(what: &What) -> bool {
    match what {
        What::Fork(_) | What::Dns(_) => false,
        What::FileOpen(_)
        | What::FileRead(_)
        | What::FileChange(_)
        | What::DeviceOpen(_)
        | What::MemoryAccess(_)
        | What::BpfAccess(_)
        | What::Connect(_)
        | What::ConnectEnd(_)
        | What::SocketOpen(_)
        | What::LocalConnect(_)
        | What::Exec(_)
        | What::Exit(_)
        | What::Loss(_)
        | What::Gap(_)
        | What::Start(_)
        | What::Stop(_)
        | What::Hook(_)
        | What::Coverage(_)
        | What::Policies(_)
        | What::Disk(_)
        | What::ClockStep(_)
        | What::Finding(_)
        | What::Log(_) => true,
    }
}

fn is_of_a_task(what: &What) -> bool {
    matches!(
        what,
        What::FileOpen(_)
            | What::FileRead(_)
            | What::FileChange(_)
            | What::DeviceOpen(_)
            | What::MemoryAccess(_)
            | What::BpfAccess(_)
            | What::Connect(_)
            | What::ConnectEnd(_)
            | What::SocketOpen(_)
            | What::LocalConnect(_)
            | What::Exec(_)
            | What::Exit(_)
    )
}

/// One of each kind, with hostile names where there are names.
fn examples() -> Vec<What> {
    let hostile = b"/m/\xff\n\x1b[31m\xe2\x80\xae hf_abcdefghijklmnopqrstuvwxyz".to_vec();
    let key = FileKey { dev: 1, ino: 2, generation: 3 };
    let open = FileOpen {
        path: hostile.clone(),
        path_truncated: true,
        known_as: Some(hostile.clone()),
        key,
        watched: key,
        flags: 0,
        inode_mode: 0o100_644,
        size_bytes: u64::MAX,
        links: 2,
        received: true,
        denied_by: None,
    };
    let read = |path: Option<Vec<u8>>| FileRead {
        path,
        key,
        watched: key,
        size_bytes: 7,
        bytes_read: Some(u64::MAX),
        bytes_faulted: None,
        bytes_written: Some(0),
        coverage: Coverage::default(),
        first_boot_ns: 1,
        last_boot_ns: 2,
        told: Told::Close,
    };
    let change = |(_, how): (u32, Change)| {
        let (path, known_as) = (hostile.clone(), Some(hostile.clone()));
        What::FileChange(FileChange { how, path, path_truncated: true, known_as, key, watched: key, links: 0 })
    };
    let way = |kind| What::DeviceOpen(DeviceOpen { kind, path: hostile.clone(), device: 8 << 20 });
    let memory = |target_start_boot_ns| {
        What::MemoryAccess(MemoryAccess { target_pid: 9, target_start_boot_ns, how: MemoryHow::Attach })
    };
    let reach = |kind, how| What::BpfAccess(BpfAccess { kind, id: 7, name: b"DENY_USERS\xff".to_vec(), how });
    let gap = Gap { from_unix_ns: Some(1), reboot: true, orderly: false };
    let words = vec![("a".to_owned(), "b".to_owned())];
    let start = Start { coverage: words.clone(), previous: "new".to_owned(), keeping: words.clone() };
    let hook = |rung: Option<&str>, sight| {
        What::Hook(Hook { name: "file_open".into(), rung: rung.map(Into::into), sight, state: "x".into() })
    };
    let policies = Policies { digest: "d".into(), generation: 2, previous_digest: "c".into() };
    let disk = |state| Disk { state, free_bytes: 7, action: "everything is recorded" };
    let connect = |address: IpAddr| Connect {
        protocol: Protocol::Tcp,
        address,
        port: 443,
        how: ConnectHow::Begin,
        denied_by: None,
        source: None,
        net_ns: NetNs::default(),
    };
    let end = |outcome| {
        What::ConnectEnd(ConnectEnd {
            protocol: Protocol::Tcp,
            address: [203, 0, 113, 7].into(),
            port: 443,
            outcome,
            source: None,
            net_ns: NetNs::default(),
            duration_ns: 5,
            bytes_sent: u64::MAX,
            bytes_received: 0,
        })
    };
    let local = |name: &[u8]| What::LocalConnect(LocalConnect { name: name.to_vec(), server_pid: Some(7) });
    let changes: Vec<What> = Change::ALL.into_iter().map(change).collect();
    let mut examples = vec![
        // The first is pruned.
        What::FileOpen(open.clone()),
        What::FileRead(read(Some(hostile.clone()))),
        What::FileRead(read(None)),
        way(DeviceKind::BlockDevice),
        way(DeviceKind::BypassDevice),
        way(DeviceKind::GpuDevice),
        memory(None),
        memory(Some(7)),
        reach(BpfKind::Program, BpfHow::Change),
        reach(BpfKind::Link, BpfHow::Change),
        What::FileOpen(open),
        local(b"/run/\xff\x1b[.sock\0"),
        local(b"\0abstract"),
        What::Connect(connect([203, 0, 113, 7].into())),
        What::Connect(connect("2001:db8::1".parse().unwrap_or([0; 16].into()))),
        end(Outcome::Closed),
        end(Outcome::Refused),
        end(Outcome::TimedOut),
        end(Outcome::Failed(113)),
        What::SocketOpen(SocketOpen { family: 17, kind: 3, protocol: 0 }),
        What::Exec(Exec {
            mnt_ns: 1,
            exe: hostile.clone(),
            arguments: hostile.clone(),
            arguments_truncated: true,
            capabilities: u64::MAX,
            loginuid: Some(1000),
            deleted: true,
            key: FileKey::default(),
        }),
        What::Fork(Fork { child_pid: 2, child_start_boot_ns: 3 }),
        What::Exit(Exit { code: -9 }),
        What::Loss(Loss { place: "ring", what: "file_open".into(), cpu: Some(1), cgroup_id: Some(7), count: 12 }),
        What::Gap(gap),
        What::Start(start),
        What::Stop(Stop { reason: "SIGTERM".into() }),
        hook(Some("tp_btf"), Sight::Sees),
        hook(None, Sight::Blind),
        hook(None, Sight::Silent),
        What::Policies(policies),
        What::Coverage(CoverageStatement {
            cause: "start".into(),
            hooks: words.clone(),
            host: words.clone(),
            watched: words.clone(),
            blind: words.clone(),
        }),
        What::Disk(disk(DiskState::Enough)),
        What::Disk(disk(DiskState::Full)),
        What::ClockStep(ClockStep { by_ns: -3_600_000_000_000 }),
        What::Finding(Finding {
            evidence: vec![("errors".into(), 2.0)],
            ..Finding::new("gpu.ecc", Severity::Critical, "GPU-\u{1b}".into(), "memory errors".into())
        }),
        What::Finding(Finding {
            evidence: vec![("xid".into(), 31.0)],
            process: Some(FoundProcess { pid: 4242, name: "python3".into() }),
            holders: vec![FoundHolder {
                namespace: "serving".into(),
                pod: "vllm-0".into(),
                container: "engine".into(),
                instance: Some(1),
                told_by: "kubelet",
            }],
            ..Finding::new("gpu.xid", Severity::Low, "GPU-1".into(), "XID 31".into())
        }),
        What::Log(Statement::Pruned(statement::Pruned {
            from: 0,
            to: 3,
            kept: 1,
            kept_sha256: "0".repeat(64),
            reason: "older than 183 days".into(),
        })),
    ];
    examples.extend(changes);
    examples
}

/// One record of every kind in a log, with statements written by the log itself.
/// A hostile name, and more of them than a record takes.
fn resolved() -> Resolved {
    let name = |name: &str| Known {
        told: Arc::new(Answer {
            name: name.to_owned(),
            aliases: vec!["\\032.example".to_owned()],
            server: ([10, 0, 0, 53], 53).into(),
            asked_by: Some(Arc::new(Who { pid: 7, comm: b"\xff\x1b[".to_vec(), ..Who::default() })),
        }),
        doubt: None,
        first_boot_ns: 1,
        until_boot_ns: u64::MAX,
    };
    let names = ["_\\000.example", "hf.co", "x.hf.co", "y.hf.co", "z.hf.co"];
    Resolved { state: State::Matched, names: names.map(name).to_vec() }
}

fn write_log(dir: &Path) -> Result<usize, Box<dyn std::error::Error>> {
    let recorder = Recorder {
        hostname: "n".into(),
        boot_id: "b".into(),
        build: "c".into(),
        redactor: Arc::default(),
        processes: true,
    };
    let keeper = DaemonKeeper { recorder: recorder.clone(), in_force: Arc::new(Mutex::new(InForce::default())) };
    let options =
        Options { keeper: Arc::new(keeper), segment_bytes: 1, ..Options::new(SigningKey::generate("plumbline/n")?) };
    let moment = Moment::now("d", 1, "unknown");
    let ancestors = (2..9).map(|pid| Process { pid, exe: Some(b"/bin/\xff".to_vec()), ..Process::default() });
    let taken = Taken {
        path: Some(b"/m/\xff\n\x1b[31m".to_vec()),
        key: FileKey { dev: 1, ino: 2, generation: 3 },
        watched: FileKey { dev: 1, ino: 1, generation: 0 },
        reader: Who { pid: 7, comm: b"\xff\x1b[".to_vec(), ..Who::default() },
        first_boot_ns: 1,
        last_boot_ns: 2,
        bytes_read: Some(u64::MAX),
        bytes_faulted: None,
    };
    let identity = Identity {
        process: Process::default(),
        ancestors: ancestors.collect(),
        artefact: None,
        pod: Some(Pod {
            namespace: "n".into(),
            name: "p".into(),
            container: Some("c".into()),
            image: Some("i".into()),
            labels: [("l".to_owned(), "v".to_owned())].into(),
        }),
        has_read: HasRead { files: vec![taken; MAX_FILES], left_out: 1 },
        dns: resolved(),
        user: Some("\u{1b}u".into()),
        exe_sha256: Some("0".repeat(64)),
        is_served: Some(true),
    };
    let (mut log, _) = Log::open(dir, options.clone())?;
    let mut written = 0;
    for what in examples() {
        let of_a_task = is_of_a_task(&what);
        let task = of_a_task.then(|| Task { pid: 7, comm: b"\xff".to_vec(), ..Task::default() });
        let origin = of_a_task.then_some(Origin { generation: 1, program: 0, cpu: 1, sequence: 2 });
        // Without a policy no connection is kept: its own check has one.
        let kept = is_recorded(&what) && !matches!(what, What::Connect(_) | What::ConnectEnd(_));
        let event = Event { boot_ns: 5, origin, task, what };
        match recorder.draft(&event, Some(&identity), None, &moment) {
            Some(drafted) => drop(log.append(&drafted?.draft)?.seq),
            None if kept => return Err(format!("no record of {}", event.what.kind()).into()),
            None => {}
        }
        written += usize::from(kept);
        log.commit()?;
    }
    log.next_epoch()?;
    log.prune(2, "as an example")?;
    drop(log);
    // Recovered.
    drop(Log::open(dir, options)?);
    Ok(written)
}

pub(super) fn every_kind_is_valid_ocsf(tools: &Tools, scratch: &Path) -> Result<(), Ended> {
    let dir = scratch.join("every-kind");
    fs::create_dir_all(scratch).map_err(not_ok)?;
    let written = write_log(&dir).map_err(not_ok)?;
    ensure(written >= 12, || format!("only {written} kinds"))?;
    let kinds = validate(tools, &dir)?;
    for kind in ["epoch", "recovered", "pruned", "clock_step", "gap", "hook", "exec", "exit", "disk", "loss"] {
        ensure(kinds.iter().any(|found| found == kind), || format!("no record of kind {kind} among {kinds:?}"))?;
    }
    Ok(())
}

/// A run that exercises what a daemon can be made to do: files, connections, processes, a reload, a stop, a kill.
pub(super) fn a_whole_run_is_valid_ocsf(tools: &Tools, scratch: &Path) -> Result<(), Ended> {
    let config = format!("{QUIET}audit: {{record_processes: true, epoch_seconds: 1, segment_bytes: 20000}}\n");
    let spine = Spine::start_with(tools, scratch, &config)?;
    let path = spine.models.join("models--a--b/blobs/0");
    fs::create_dir_all(spine.models.join("models--a--b/blobs")).map_err(not_ok)?;
    fs::write(&path, b"weights").map_err(not_ok)?;
    run(Command::new("cat").arg(&path)).map_err(not_ok)?;
    spine.open_of(&path).map_err(not_ok)?;
    let _refused = std::net::TcpStream::connect_timeout(&([192, 0, 2, 1], 9).into(), Duration::from_millis(50));
    spine.daemon.wait_for_record("the connection", |record| record["class_uid"] == 4001).map_err(not_ok)?;
    let policy = scratch.join("policies/weights.yaml");
    let text = fs::read_to_string(&policy).map_err(not_ok)?;
    fs::write(&policy, text.replace("severity: high", "severity: low")).map_err(not_ok)?;
    spine.daemon.signal(rustix::process::Signal::HUP).map_err(not_ok)?;
    spine.daemon.wait_for_record("the policy change", |record| record["class_uid"] == 5019).map_err(not_ok)?;
    spine.daemon.wait_for("plumbline_log_epoch", |epoch| epoch >= 1.0).map_err(not_ok)?;
    // Killed, and started again.
    drop(spine);
    let spine = Spine::start_with(tools, scratch, &config)?;
    spine
        .daemon
        .wait_for_record("that it was recovered", |record| record["unmapped"]["plumbline"]["kind"] == "recovered")
        .map_err(not_ok)?;
    let log = spine.daemon.log_dir();
    spine.daemon.stop().map_err(not_ok)?;
    let kinds = validate(tools, &log)?;
    for kind in
        ["file_open", "connect", "exec", "exit", "start", "stop", "hook", "policies", "epoch", "recovered", "gap"]
    {
        ensure(kinds.iter().any(|found| found == kind), || format!("no record of kind {kind} among {kinds:?}"))?;
    }
    Ok(())
}

/// All records of the log are valid; their kinds.
fn validate(tools: &Tools, log: &Path) -> Result<Vec<String>, Ended> {
    let Some(python) = &tools.python else {
        return Err(skipped("no Python with `ocsf-json-schema` (PLUMBLINE_PYTHON)"));
    };
    let all = run(Command::new(&tools.plumbline).args(["audit", "cat"]).arg(log)).map_err(not_ok)?;
    let said =
        run_with(Command::new(python).arg(tools.scripts.join("validate_ocsf.py")), &all.stdout).map_err(not_ok)?;
    ensure(said.status.success(), || {
        String::from_utf8_lossy(&said.stdout).into_owned() + &String::from_utf8_lossy(&said.stderr)
    })?;
    let kind = |record: serde_json::Value| record["unmapped"]["plumbline"]["kind"].as_str().map(str::to_owned);
    Ok(records(tools, log).map_err(not_ok)?.into_iter().filter_map(kind).collect())
}
