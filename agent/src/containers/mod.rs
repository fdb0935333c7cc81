//! The control group of each serving engine: CPU, memory, pressure, disk, restarts. A container's where the engine is in one,
//! else that of its unit or session.
//!
//! | file | its one job |
//! |---|---|
//! | `cgroup` | one group's files into numbers, v2 and v1 |

pub mod cgroup;

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use tokio::{
    sync::{mpsc, watch},
    time::{MissedTickBehavior, interval},
};

use self::cgroup::Mounts;
use crate::{
    clock::boot_ns,
    identity::cgroup::Cgroup,
    incident::Incident,
    message::Message,
    series::{Point, Sample, container},
};

/// Which process each engine is, by the engine's name.
pub type Engines = BTreeMap<String, u32>;

/// Between two readings.
const INTERVAL: Duration = Duration::from_secs(5);
/// In an incident.
const INCIDENT_INTERVAL: Duration = Duration::from_secs(1);

/// Reads the groups of `engines`, until nobody listens or nobody says any more which engines there are. `proc` is normally `/proc`.
/// Each engine's is a sample of its own, `container:<engine>`.
pub async fn run(
    mut engines: watch::Receiver<Engines>,
    proc: PathBuf,
    incident: Incident,
    samples: mpsc::Sender<Message>,
) {
    let mut ticks = interval(INCIDENT_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut watched = Watched::default();
    let mut read_boot_ns = 0;
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = samples.closed() => return,
            changed = engines.changed() => match changed {
                Ok(()) => {}
                Err(_) => return,
            },
        }
        let due = Duration::from_nanos(boot_ns().saturating_sub(read_boot_ns)) >= INTERVAL - INCIDENT_INTERVAL / 2;
        if !due && !incident.holds(boot_ns()) {
            continue;
        }
        read_boot_ns = boot_ns();
        let now = engines.borrow_and_update().clone();
        let proc = proc.clone();
        // The kernel may make a reader of memory.stat wait for all CPUs.
        let read = tokio::task::spawn_blocking(move || {
            let readings = watched.read(&proc, &now);
            (watched, readings)
        });
        let Ok((back, readings)) = read.await else { return };
        watched = back;
        for (engine, points) in readings {
            let sample = Sample { source: format!("container:{engine}"), taken_boot_ns: read_boot_ns, points };
            if samples.send(Message::Sample(sample)).await.is_err() {
                return;
            }
        }
    }
}

/// What is remembered from one reading to the next.
#[derive(Debug, Default)]
struct Watched {
    engines: BTreeMap<String, Seen>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Seen {
    /// Process id and its start, in ticks since boot: together they are no other process's.
    process: Option<(u32, u64)>,
    restarts: u64,
    is_gone: bool,
}

/// Engines that were once seen and are remembered for the count of their restarts.
const MOST_SEEN: usize = 1024;

impl Watched {
    fn read(&mut self, proc: &Path, engines: &Engines) -> Vec<(String, Result<Vec<Point>, String>)> {
        let mounts = Mounts::here();
        let mut readings = Vec::new();
        for (engine, &pid) in engines {
            if self.engines.len() >= MOST_SEEN && !self.engines.contains_key(engine) {
                self.engines.retain(|known, _| engines.contains_key(known));
            }
            let seen = self.engines.entry(engine.clone()).or_default();
            seen.is_gone = false;
            let points = read_one(&mounts, &proc.join(pid.to_string()), engine, pid, seen);
            readings.push((engine.clone(), points.map_err(|error| format!("the engine's process {pid}: {error}"))));
        }
        for (engine, seen) in
            self.engines.iter_mut().filter(|(engine, seen)| !seen.is_gone && !engines.contains_key(*engine))
        {
            seen.is_gone = true;
            readings.push((engine.clone(), Err("the engine's process is gone".to_owned())));
        }
        readings
    }
}

fn read_one(mounts: &Mounts, process: &Path, engine: &str, pid: u32, seen: &mut Seen) -> io::Result<Vec<Point>> {
    let start = start(&fs::read(process.join("stat"))?).ok_or(io::ErrorKind::InvalidData)?;
    if seen.process.is_some_and(|before| before != (pid, start)) {
        seen.restarts += 1;
    }
    seen.process = Some((pid, start));
    let file = fs::read(process.join("cgroup"))?;
    let cgroup = Cgroup::parse(&file).unwrap_or_default();
    // A user may name a cgroup below its session as it likes.
    let container = cgroup.container.as_ref().filter(|_| cgroup.is_contained());
    let (id, runtime) = container.map_or(("", ""), |container| (&*container.id, container.runtime));
    let labels = [engine, id, runtime, cgroup.pod_uid.as_deref().unwrap_or_default(), &pid.to_string()];
    #[expect(clippy::cast_precision_loss, reason = "exact up to 2^53")]
    let mut points = vec![
        Point::new(&container::INFO, &labels, 1.0),
        Point::new(&container::RESTARTS_TOTAL, &[engine], seen.restarts as f64),
    ];
    points.extend(mounts.groups(&file, container.map(|container| &*container.id)).read().into_iter().map(
        |(series, own, value)| {
            let labels: Vec<&str> = std::iter::once(engine).chain(own).collect();
            Point::new(series, &labels, value)
        },
    ));
    Ok(points)
}

/// Field 22 of proc_pid_stat(5); the name before it, in brackets, may have anything in it.
fn start(stat: &[u8]) -> Option<u64> {
    let end = stat.iter().rposition(|&byte| byte == b')')?;
    std::str::from_utf8(&stat[end + 1..]).ok()?.split_ascii_whitespace().nth(19)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn restarts(readings: &[(String, Result<Vec<Point>, String>)]) -> Vec<String> {
        let say = |(engine, points): &(String, Result<Vec<Point>, String>)| match points {
            Ok(points) => {
                let restarts = points.iter().find(|point| *point.series == container::RESTARTS_TOTAL);
                format!("{engine} {}", restarts.and_then(Point::number).unwrap_or(f64::NAN))
            }
            Err(why) => format!("{engine}: {why}"),
        };
        readings.iter().map(say).collect()
    }

    #[test]
    fn an_engine_that_is_another_process_by_now_has_restarted_even_under_the_same_id() {
        let root = tempfile::tempdir().expect("a temporary folder");
        let process = |pid: u32, start: u32| {
            let folder = root.path().join(pid.to_string());
            fs::create_dir_all(&folder).expect("a folder");
            let zeros = "0 ".repeat(18);
            fs::write(folder.join("stat"), format!("{pid} (a) b) S {zeros}{start} 0 0\n")).expect("a file");
            fs::write(folder.join("cgroup"), "0::/\n").expect("a file");
        };
        let mut watched = Watched::default();
        let mut read = |pid: Option<u32>| {
            let engines = pid.map(|pid| ("e".to_owned(), pid)).into_iter().collect();
            restarts(&watched.read(root.path(), &engines))
        };
        process(10, 7);
        assert_eq!(read(Some(10)), ["e 0"]);
        assert_eq!(read(Some(10)), ["e 0"]);
        process(10, 9);
        assert_eq!(read(Some(10)), ["e 1"]);
        assert_eq!(read(None), ["e: the engine's process is gone"]);
        assert_eq!(read(None), [""; 0]);
        process(11, 12);
        assert_eq!(read(Some(11)), ["e 2"]);
        assert_eq!(read(Some(12)), ["e: the engine's process 12: No such file or directory (os error 2)"]);
    }
}
