//! Kills and broken disks: nothing that was durable is lost, what is missing is declared, and nothing looks tampered with.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use plumbline_audit::{
    Log, Options, Reader, SigningKey,
    record::Envelope,
    statement::Statement,
    verify::{self, verify},
};
use serde_json::Value;

use super::{QUIET, Spine, ensure, not_ok, skipped, verdict};
use crate::{
    checks::Ended,
    daemon::{Tools, records, run},
};

/// How many kills, when nobody says.
const KILLS: u64 = 20;
/// A log begins anew after so many, so that verifying stays quick.
const KILLS_PER_LOG: u64 = 25;

/// A small generator (xorshift64*): the points are random, and can be had again from the seed in the failure.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) % limit
    }
}

pub(super) fn a_writer_killed_at_random_points(tools: &Tools, scratch: &Path) -> Result<(), Ended> {
    let kills = std::env::var("PLUMBLINE_KILLS").ok().and_then(|text| text.parse().ok()).unwrap_or(KILLS);
    let seed = u64::from(std::process::id()) << 20 | 1;
    let mut random = Random(seed);
    let key = SigningKey::from_seed("log.example/killed", &[1; 32]).map_err(not_ok)?;
    let trusted = [key.verifier().clone()];
    let mut dir = PathBuf::new();
    for kill in 0..kills {
        let in_this_log = kill % KILLS_PER_LOG;
        if in_this_log == 0 {
            dir = scratch.join(format!("killed-{kill}"));
            fs::create_dir_all(&dir).map_err(not_ok)?;
        }
        let durable = run_and_kill(tools, &dir, Duration::from_micros(random.below(60_000)))?;
        let at = |what: String| move || format!("kill {kill}, seed {seed}: {what}");
        let report = verify(&dir, &trusted, &verify::Options::default());
        match report {
            // Killed before there was a log.
            Err(_) if durable == 0 => continue,
            report => {
                let report = report.map_err(not_ok)?;
                ensure(matches!(report.exit_code(), 0 | 2), at(format!("a false alarm: {report}")))?;
                ensure(report.records >= durable, at(format!("{durable} were durable: {report}")))?;
            }
        }
        // Whoever opens it next says that it was recovered, if it was a log already.
        if in_this_log == KILLS_PER_LOG - 1 || kill == kills - 1 {
            let (log, recovery) = Log::open(&dir, Options::new(key.clone())).map_err(not_ok)?;
            ensure(!recovery.clean_stop, at("the stop counts as orderly".to_owned()))?;
            log.close().map_err(not_ok)?;
            let vkey = dir.join("vkey");
            fs::write(&vkey, trusted[0].to_string()).map_err(not_ok)?;
            verdict(tools, &dir, &vkey, 2, "declared")?;
            let entries = Reader::from_seq(&dir, 0).map_err(not_ok)?.collect::<Result<Vec<_>, _>>().map_err(not_ok)?;
            let recovered = |bytes: &[u8]| {
                let envelope = Envelope::parse(bytes).ok();
                matches!(envelope.as_ref().and_then(Envelope::statement), Some(Statement::Recovered(_)))
            };
            let count = entries.iter().filter(|entry| recovered(&entry.bytes)).count() as u64;
            // A kill before the log was open leaves the recovery to the next.
            ensure(count >= 1 && count <= in_this_log + 1, at(format!("{count} recoveries")))?;
        }
    }
    Ok(())
}

/// Lets the writer write for a while, kills it, and tells how many records it said were durable.
fn run_and_kill(tools: &Tools, dir: &Path, life: Duration) -> Result<u64, Ended> {
    let program = tools.beside("log-writer").ok_or_else(|| skipped("the program `log-writer` is not built"))?;
    let mut child = Command::new(program).arg(dir).stdout(Stdio::piped()).spawn().map_err(not_ok)?;
    let out = child.stdout.take().ok_or_else(|| not_ok("no output"))?;
    let reader = std::thread::spawn(move || {
        let lines = BufReader::new(out).lines().map_while(Result::ok);
        // The last line may be cut off by the kill.
        lines.filter_map(|line| line.parse::<u64>().ok()).max().unwrap_or(0)
    });
    std::thread::sleep(life);
    child.kill().and_then(|()| child.wait()).map_err(not_ok)?;
    let told = reader.join().map_err(|_| not_ok("the reader ended"))?;
    Ok(told)
}

/// A small ext4 on a loop device of its own.
struct Loop {
    at: PathBuf,
}

impl Loop {
    fn mount(scratch: &Path, mib: u64) -> Result<Self, Ended> {
        let (image, at) = (scratch.join("disk.img"), scratch.join("state"));
        fs::create_dir_all(&at).map_err(not_ok)?;
        let file = fs::File::create(&image).map_err(not_ok)?;
        file.set_len(mib << 20).map_err(not_ok)?;
        let script =
            format!("mkfs.ext4 -q -m 0 {0} && mount -o loop,errors=remount-ro {0} {1}", image.display(), at.display());
        match run(Command::new("sh").args(["-c", &script])) {
            Ok(output) if output.status.success() => Ok(Self { at }),
            Ok(output) => Err(skipped(&format!("no loop file system: {}", String::from_utf8_lossy(&output.stderr)))),
            Err(why) => Err(skipped(&why)),
        }
    }

    /// Makes the file system find an error in itself: with `errors=remount-ro` it is read-only from then on.
    fn becomes_read_only(&self) -> Result<(), Ended> {
        let find = run(Command::new("findmnt").args(["-n", "-o", "SOURCE"]).arg(&self.at)).map_err(not_ok)?;
        let source = String::from_utf8_lossy(&find.stdout).trim().trim_start_matches("/dev/").to_owned();
        let trigger = format!("/sys/fs/ext4/{source}/trigger_fs_error");
        fs::write(&trigger, "as a part of a check").map_err(|error| skipped(&format!("{trigger}: {error}")))
    }

    /// Repairs and mounts it again.
    fn again(&self, scratch: &Path) -> Result<(), Ended> {
        let image = scratch.join("disk.img").display().to_string();
        let script = format!(
            "umount {0} && {{ fsck.ext4 -p {image} >/dev/null || [ $? -le 1 ]; }} && mount -o loop {image} {0}",
            self.at.display()
        );
        let output = run(Command::new("sh").args(["-c", &script])).map_err(not_ok)?;
        ensure(output.status.success(), || String::from_utf8_lossy(&output.stderr).into_owned())
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        let _ = run(Command::new("umount").arg("-l").arg(&self.at));
    }
}

/// Reads the watched file until the daemon has counted a loss.
fn read_until_lost(spine: &Spine, path: &Path) -> Result<(), Ended> {
    let deadline = Instant::now() + Duration::from_secs(30);
    while spine.daemon.metric(r#"plumbline_lost_total{place="log""#).map_err(not_ok)?.is_none() {
        ensure(Instant::now() < deadline, || "no loss was counted".to_owned())?;
        // Slowly: what the kernel's ring holds is recorded once there is room, and must not fill the disk again.
        fs::read(path).map_err(not_ok)?;
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}

fn watched_file(spine: &Spine, name: &str) -> Result<PathBuf, Ended> {
    let path = spine.models.join(name);
    fs::write(&path, b"weights").and_then(|()| fs::read(&path)).map_err(not_ok)?;
    spine.open_of(&path).map_err(not_ok)?;
    Ok(path)
}

/// Losses declared in the log, and those counted.
fn declared_is_counted(tools: &Tools, spine: Spine) -> Result<Vec<Value>, Ended> {
    let log = spine.daemon.log_dir();
    let counted = spine.daemon.metric(r#"plumbline_lost_total{place="log""#).map_err(not_ok)?.unwrap_or_default();
    spine.daemon.stop().map_err(not_ok)?;
    let records = records(tools, &log).map_err(not_ok)?;
    let losses = records.iter().filter(|record| record["unmapped"]["plumbline"]["kind"] == "loss");
    let declared: u64 = losses.filter_map(|record| record["unmapped"]["plumbline"]["count"].as_u64()).sum();
    #[expect(clippy::cast_precision_loss, reason = "a few records")]
    let agree = (declared as f64 - counted).abs() < 0.5;
    ensure(agree, || format!("declared {declared}, counted {counted}"))?;
    Ok(records)
}

pub(super) fn a_real_disk_fills_up(tools: &Tools, scratch: &Path) -> Result<(), Ended> {
    let disk = Loop::mount(scratch, 24)?;
    let config = format!("{QUIET}audit: {{checkpoint_seconds: 1, disk: {{low_mib: 12, critical_mib: 4}}}}\n");
    let spine = Spine::start_with(tools, scratch, &config)?;
    let path = watched_file(&spine, "d.gguf")?;
    ensure(disk.at.join("log/ballast").exists(), || "there is no ballast".to_owned())?;
    let filler = disk.at.join("filler");
    // Ends with an error, and that is the point.
    let _ = fs::write(&filler, vec![1; 32 << 20]);
    read_until_lost(&spine, &path)?;
    ensure(!disk.at.join("log/ballast").exists(), || "the ballast was kept on a full disk".to_owned())?;
    let full = |record: &Value| record["unmapped"]["plumbline"]["state"] == "full";
    spine.daemon.wait_for_record("the full disk", full).map_err(not_ok)?;
    // What was written by then is signed: the last words had room.
    fs::remove_file(&filler).map_err(not_ok)?;
    let enough = |record: &Value| record["unmapped"]["plumbline"]["state"] == "enough";
    spine.daemon.wait_for_record("that there is room again", enough).map_err(not_ok)?;
    ensure(disk.at.join("log/ballast").exists(), || "the ballast did not come back".to_owned())?;
    let again = watched_file(&spine, "after.gguf")?;
    let (log, vkey) = (spine.daemon.log_dir(), spine.daemon.vkey());
    let records = declared_is_counted(tools, spine)?;
    let states: Vec<&str> =
        records.iter().filter_map(|record| record["unmapped"]["plumbline"]["state"].as_str()).collect();
    ensure(states.contains(&"full") && states.contains(&"enough"), || format!("{states:?}"))?;
    ensure(records.iter().any(|record| record["file"]["path"] == again.display().to_string()), || {
        "no more".to_owned()
    })?;
    verdict(tools, &log, &vkey, 2, "declared")
}

pub(super) fn a_stop_while_the_disk_is_full(tools: &Tools, scratch: &Path) -> Result<(), Ended> {
    let disk = Loop::mount(scratch, 24)?;
    let spine = Spine::start_with(tools, scratch, &format!("{QUIET}audit: {{checkpoint_seconds: 1}}\n"))?;
    let path = watched_file(&spine, "s.gguf")?;
    let filler = disk.at.join("filler");
    let _ = fs::write(&filler, vec![1; 32 << 20]);
    read_until_lost(&spine, &path)?;
    let (log, vkey) = (spine.daemon.log_dir(), spine.daemon.vkey());
    // The last words have the room of the ballast: the losses are told, and the log is closed in order.
    let records = declared_is_counted(tools, spine)?;
    let kinds = records.iter().rev().take(4).map(|record| record["unmapped"]["plumbline"]["kind"].clone());
    ensure(kinds.clone().any(|kind| kind == "loss"), || format!("{:?}", kinds.clone().collect::<Vec<_>>()))?;
    verdict(tools, &log, &vkey, 2, "declared")
}

pub(super) fn a_disk_becomes_read_only(tools: &Tools, scratch: &Path) -> Result<(), Ended> {
    let disk = Loop::mount(scratch, 24)?;
    let config = format!("{QUIET}audit: {{checkpoint_seconds: 1}}\n");
    let spine = Spine::start_with(tools, scratch, &config)?;
    let before = watched_file(&spine, "before.gguf")?;
    spine.daemon.wait_for("plumbline_log_checkpoint_records", |size| size > 8.0).map_err(not_ok)?;
    disk.becomes_read_only()?;
    fs::read(&before).map_err(not_ok)?;
    spine.daemon.wait_for("plumbline_log_errors_total", |errors| errors > 0.0).map_err(not_ok)?;
    let said = spine.daemon.said(scratch);
    ensure(said.contains("audit log cannot be written"), || "nothing was said aloud".to_owned())?;
    // It cannot close its log, and says so by its exit code.
    ensure(spine.daemon.stop().is_err(), || "the daemon ended as if its log were closed".to_owned())?;
    disk.again(scratch)?;
    let spine = Spine::start_with(tools, scratch, &config)?;
    watched_file(&spine, "after.gguf")?;
    let (log, vkey) = (spine.daemon.log_dir(), spine.daemon.vkey());
    spine.daemon.stop().map_err(not_ok)?;
    let records = records(tools, &log).map_err(not_ok)?;
    let shown = before.display().to_string();
    ensure(records.iter().any(|record| record["file"]["path"] == shown.as_str()), || format!("{shown} is lost"))?;
    verdict(tools, &log, &vkey, 2, "declared")
}

/// A library that lets flushes fail while a file exists stands for a disk with errors.
pub(super) fn flushes_fail_for_a_while(tools: &Tools, scratch: &Path) -> Result<(), Ended> {
    let library = tools.beside("libfake_disk.so").ok_or_else(|| skipped("`libfake_disk.so` is not built"))?;
    fs::create_dir_all(scratch).map_err(not_ok)?;
    let switch = scratch.join("flushes-fail");
    let env =
        [("LD_PRELOAD", library.display().to_string()), ("PLUMBLINE_FAKE_DISK_FAILS", switch.display().to_string())];
    let env: Vec<(&str, &str)> = env.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let lines = scratch.join("audit.jsonl");
    let config = format!("{QUIET}audit: {{checkpoint_seconds: 1}}\njsonl: {{path: {}}}\n", lines.display());
    let spine = Spine::start_in(tools, scratch, &config, &env)?;
    let before = watched_file(&spine, "before.gguf")?;
    fs::write(&switch, b"").map_err(not_ok)?;
    let meanwhile = spine.models.join("meanwhile.gguf");
    fs::write(&meanwhile, b"weights").and_then(|()| fs::read(&meanwhile)).map_err(not_ok)?;
    spine.daemon.wait_for("plumbline_log_errors_total", |errors| errors > 1.0).map_err(not_ok)?;
    fs::remove_file(&switch).map_err(not_ok)?;
    let after = watched_file(&spine, "after.gguf")?;
    let (log, vkey) = (spine.daemon.log_dir(), spine.daemon.vkey());
    let records = declared_is_counted(tools, spine)?;
    // The segment was written anew under the exporter, which noticed. Its own flushes failed too: lines come twice then, and
    // never not at all.
    let cat = run(Command::new(&tools.plumbline).args(["audit", "cat"]).arg(&log)).map_err(not_ok)?;
    let written = fs::read_to_string(&lines).map_err(not_ok)?;
    let mut seen = std::collections::HashSet::new();
    let once: Vec<&str> = written.lines().filter(|line| seen.insert(*line)).collect();
    let kept: Vec<&str> = std::str::from_utf8(&cat.stdout).map_err(not_ok)?.lines().collect();
    ensure(once == kept, || {
        format!("{} lines, {} of them once, for {} records", written.lines().count(), once.len(), kept.len())
    })?;
    for path in [before, meanwhile, after] {
        let shown = path.display().to_string();
        ensure(records.iter().any(|record| record["file"]["path"] == shown.as_str()), || format!("{shown} is lost"))?;
    }
    verdict(tools, &log, &vkey, 0, "intact")
}
