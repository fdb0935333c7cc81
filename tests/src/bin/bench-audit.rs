//! What the audit log costs, beside the same work done bare: `cargo xtask bench audit` builds and runs it.
//!
//! `bench-audit DIR [RECORDS OF THE LARGE LOG]`. Rounds with and without the log alternate; ratios are of neighbours in
//! time. DIR decides which disk is measured.

use std::{
    fs::{self, File},
    hint::black_box,
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
    sync::Arc,
    time::{Duration, Instant},
};

use plumbline::{
    event::{Event, FileKey, FileOpen, Origin, Task, What},
    identity::{Identity, Process},
    record::{Moment, Recorder},
};
use plumbline_audit::{
    Draft, Log, Options, SigningKey, VerifierKey,
    merkle::Hash,
    tlog_proof::prove,
    verify::{self, verify},
};
use serde_json::json;
use sha2::{Digest as _, Sha256};

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

const BATCH: usize = 64;
const BATCHES: usize = 400;
const ROUNDS: usize = 7;
const LARGE: u64 = 10_000_000;

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench-audit: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Outcome<()> {
    let mut arguments = std::env::args().skip(1);
    let dir = PathBuf::from(arguments.next().ok_or("which directory?")?);
    let large = arguments.next().map_or(Ok(LARGE), |text| text.parse())?;
    let _ = fs::remove_dir_all(&dir);
    fs::create_dir_all(&dir)?;
    drafting()?;
    group_commit(&dir, "records of 700 bytes", &small_draft()?)?;
    group_commit(&dir, "records as the daemon writes them", &real_draft()?)?;
    verifying(&dir)?;
    journal(&dir)?;
    println!("auditd: not run, because it has no integrity to verify and the kernel's audit cannot be fed alone here");
    large_log(&dir, large)?;
    fs::remove_dir_all(&dir)?;
    Ok(())
}

fn key() -> Outcome<SigningKey> {
    Ok(SigningKey::from_seed("log.example/bench", &[1; 32])?)
}

fn small_draft() -> Outcome<Draft> {
    let event = json!({"class_uid": 1001, "time": 1_790_000_000_000_u64, "message": "x".repeat(430)});
    Ok(Draft::new(event.as_object().cloned().unwrap_or_default())?)
}

fn recorder() -> Recorder {
    Recorder {
        hostname: "node-17.example.com".into(),
        boot_id: "3d1219c7-c4c5-404a-aa1f-6d2a48adfda4".into(),
        build: "0".repeat(64),
        redactor: Arc::default(),
        processes: false,
    }
}

/// An open of a model file by a process with five ancestors.
fn event() -> (Event, Identity) {
    let key = FileKey { dev: 1, ino: 16_187_395, generation: 515_384_110 };
    let open = FileOpen {
        path: b"/models/models--meta-llama--Llama-3.1-8B/blobs/5d0f1b2c3d4e5f60718293a4b5c6d7e8f90a1b2c3d4e5f60"
            .to_vec(),
        path_truncated: false,
        known_as: None,
        received: false,
        denied_by: None,
        key,
        watched: key,
        flags: 0o100_000,
        inode_mode: 0o100_644,
        size_bytes: 16_060_522_240,
        links: 1,
    };
    let process = |pid: u32| Process {
        pid,
        exe: Some(b"/usr/local/bin/python3.12".to_vec()),
        comm: b"python3".to_vec(),
        ..Process::default()
    };
    let identity = Identity {
        process: process(4907),
        ancestors: (2..7).map(process).collect(),
        artefact: None,
        ..Identity::default()
    };
    let task = Task { pid: 4907, tid: 4907, comm: b"python3".to_vec(), ..Task::default() };
    let origin = Some(Origin { generation: 1, program: 0, cpu: 1, sequence: 12 });
    (Event { boot_ns: 4_343_265_006_944, origin, task: Some(task), what: What::FileOpen(open) }, identity)
}

fn draft_of(recorder: &Recorder, event: &Event, identity: &Identity) -> Outcome<Draft> {
    let moment = Moment::now("0123456789abcdef", 1, "synchronised");
    Ok(recorder.draft(event, Some(identity), None, &moment).ok_or("it is recorded")??.draft)
}

fn real_draft() -> Outcome<Draft> {
    let (event, identity) = event();
    draft_of(&recorder(), &event, &identity)
}

/// Median, least, greatest.
fn spread(values: &mut [f64]) -> String {
    values.sort_by(f64::total_cmp);
    let middle = values.get(values.len() / 2).copied().unwrap_or_default();
    let (least, greatest) = (values.first().copied().unwrap_or_default(), values.last().copied().unwrap_or_default());
    format!("{middle:.3} ({least:.3} to {greatest:.3})")
}

fn drafting() -> Outcome<()> {
    let (recorder, (event, identity)) = (recorder(), event());
    let mut micros = Vec::new();
    for _ in 0..ROUNDS {
        let start = Instant::now();
        for _ in 0..2000 {
            black_box(draft_of(&recorder, &event, &identity)?);
        }
        micros.push(start.elapsed().as_secs_f64() * 1e6 / 2000.0);
    }
    println!("event to draft, redaction included: {} us a record", spread(&mut micros));
    Ok(())
}

#[expect(clippy::cast_precision_loss, reason = "rates")]
fn group_commit(dir: &Path, what: &str, draft: &Draft) -> Outcome<()> {
    let record = draft.seal("log.example/bench", 1_000_000, &Hash::ZERO)?;
    let batch: Vec<u8> = record.iter().copied().cycle().take((record.len() + 12) * BATCH).collect();
    let (mut bare_rates, mut log_rates, mut ratios, mut cores) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let mut waits = Vec::new();
    for round in 0..ROUNDS {
        let mut file = File::create(dir.join("bare"))?;
        let start = Instant::now();
        for _ in 0..BATCHES {
            file.write_all(&batch)?;
            file.sync_data()?;
        }
        let bare = (BATCH * BATCHES) as f64 / start.elapsed().as_secs_f64();

        let path = dir.join(format!("log-{round}"));
        let (mut log, _) = Log::open(&path, Options::new(key()?))?;
        let (start, cpu) = (Instant::now(), cpu_seconds());
        for _ in 0..BATCHES {
            let mut began = [Duration::ZERO; BATCH];
            for at in &mut began {
                *at = start.elapsed();
                log.append(draft)?;
            }
            log.tick(start.elapsed())?;
            let durable = start.elapsed();
            waits.extend(began.iter().map(|began| (durable - *began).as_secs_f64() * 1e3));
        }
        let wall = start.elapsed().as_secs_f64();
        let rate = (BATCH * BATCHES) as f64 / wall;
        cores.push((cpu_seconds() - cpu) / wall);
        drop(log);
        fs::remove_dir_all(path)?;
        bare_rates.push(bare);
        log_rates.push(rate);
        ratios.push(rate / bare);
    }
    waits.sort_by(f64::total_cmp);
    let p99 = waits.get(waits.len() * 99 / 100).copied().unwrap_or_default();
    println!("\ngroup commit of {BATCH}, {what} ({} bytes), median of {ROUNDS} rounds:", record.len());
    println!("  bare write and fdatasync  {} records/s", spread(&mut bare_rates));
    println!("  log, checkpoints included {} records/s", spread(&mut log_rates));
    println!("  ratio                     {}", spread(&mut ratios));
    println!("  append to durable, p99    {p99:.3} ms");
    println!("  cores used                {}", spread(&mut cores));
    Ok(())
}

/// User and kernel time of this process.
fn cpu_seconds() -> f64 {
    plumbline::own::own_cost().map_or(0.0, |cost| cost.cpu_seconds)
}

#[expect(clippy::cast_precision_loss, reason = "rates")]
fn verifying(dir: &Path) -> Outcome<()> {
    for (what, draft) in [("700 bytes", small_draft()?), ("as the daemon writes them", real_draft()?)] {
        let path = dir.join("verified");
        let (mut log, _) = Log::open(&path, Options { segment_bytes: 32 << 20, ..Options::new(key()?) })?;
        let mut bytes = 0;
        while bytes < 512 << 20 {
            log.append(&draft)?;
            bytes += draft.seal("log.example/bench", 1_000_000, &Hash::ZERO)?.len();
            if log.next_seq().is_multiple_of(4096) {
                log.commit()?;
            }
        }
        log.close()?;
        let trusted = [key()?.verifier().clone()];
        let buffer = vec![7_u8; 64 << 20];
        let (mut sha, mut one, mut two, mut ratios, mut scaling) = (vec![], vec![], vec![], vec![], vec![]);
        for _ in 0..ROUNDS {
            let start = Instant::now();
            black_box(Sha256::digest(&buffer));
            let sha_rate = buffer.len() as f64 / start.elapsed().as_secs_f64() / 1e9;
            let rate = |threads| verify_rate(&path, &trusted, threads, bytes);
            let (single, double) = (rate(1)?, rate(2)?);
            sha.push(sha_rate);
            one.push(single);
            two.push(double);
            ratios.push(single / sha_rate);
            scaling.push(double / single);
        }
        println!("\nverify, records of {what}, {} MiB in the page cache:", bytes >> 20);
        println!("  SHA-256, one thread       {} GB/s", spread(&mut sha));
        println!("  verify, one thread        {} GB/s", spread(&mut one));
        println!("  verify, two threads       {} GB/s", spread(&mut two));
        println!("  one thread / SHA-256      {}", spread(&mut ratios));
        println!("  two threads / one         {}", spread(&mut scaling));
        fs::remove_dir_all(path)?;
    }
    Ok(())
}

#[expect(clippy::cast_precision_loss, reason = "rates")]
fn verify_rate(path: &Path, trusted: &[VerifierKey], threads: usize, bytes: usize) -> Outcome<f64> {
    let start = Instant::now();
    let report = verify(path, trusted, &verify::Options { threads, ..verify::Options::default() })?;
    if report.exit_code() != 0 {
        return Err(report.to_string().into());
    }
    Ok(bytes as f64 / start.elapsed().as_secs_f64() / 1e9)
}

/// `journalctl --verify` on a journal with as many entries of 700 bytes, made by systemd-journal-remote.
#[expect(clippy::cast_precision_loss, reason = "rates")]
fn journal(dir: &Path) -> Outcome<()> {
    let remote = Path::new("/usr/lib/systemd/systemd-journal-remote");
    if !remote.exists() || Command::new("journalctl").arg("--version").output().is_err() {
        println!("\njournalctl --verify: not run, because systemd-journal-remote or journalctl is missing");
        return Ok(());
    }
    let (export, journal) = (dir.join("export"), dir.join("bench.journal"));
    let mut text = String::new();
    let entries = 100_000;
    for number in 0..entries {
        text += &format!(
            "__REALTIME_TIMESTAMP={}\n__MONOTONIC_TIMESTAMP={number}\n_BOOT_ID=00000000000000000000000000000001\nMESSAGE={number} {}\n\n",
            1_790_000_000_000_000_u64 + number,
            "x".repeat(600)
        );
    }
    fs::write(&export, &text)?;
    let made = Command::new(remote).arg("-o").arg(&journal).arg(&export).output()?;
    if !made.status.success() {
        println!("\njournalctl --verify: not run, because {}", String::from_utf8_lossy(&made.stderr).trim());
        return Ok(());
    }
    let size = fs::metadata(&journal)?.len();
    let mut rates = Vec::new();
    for _ in 0..3 {
        let start = Instant::now();
        let verified = Command::new("journalctl").arg("--verify").arg("--file").arg(&journal).output()?;
        if !verified.status.success() {
            println!("\njournalctl --verify: {}", String::from_utf8_lossy(&verified.stderr).trim());
        }
        rates.push(entries as f64 / start.elapsed().as_secs_f64());
    }
    println!(
        "\njournalctl --verify, {entries} entries without a seal, {} MiB: {} entries/s",
        size >> 20,
        spread(&mut rates)
    );
    Ok(())
}

fn large_log(dir: &Path, records: u64) -> Outcome<()> {
    let path = dir.join("large");
    let event = json!({"class_uid": 1001});
    let draft = Draft::new(event.as_object().cloned().unwrap_or_default())?;
    let (mut log, _) = Log::open(&path, Options { checkpoint_every_records: 65_536, ..Options::new(key()?) })?;
    let start = Instant::now();
    while log.next_seq() < records {
        log.append(&draft)?;
        if log.next_seq().is_multiple_of(8192) {
            log.commit()?;
        }
    }
    log.close()?;
    println!("\na log of {records} records: written in {:.1} s", start.elapsed().as_secs_f64());
    let trusted = [key()?.verifier().clone()];
    let mut millis = Vec::new();
    for number in 0..200_u64 {
        let seq = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) % records;
        let start = Instant::now();
        black_box(prove(&path, seq, &trusted)?);
        millis.push(start.elapsed().as_secs_f64() * 1e3);
    }
    println!("  proof of one record       {} ms", spread(&mut millis));
    let start = Instant::now();
    let report = verify(&path, &trusted, &verify::Options::default())?;
    println!("  verify, all threads       {:.1} s, exit code {}", start.elapsed().as_secs_f64(), report.exit_code());
    Ok(())
}
