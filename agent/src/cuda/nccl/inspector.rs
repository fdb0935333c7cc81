//! What NCCL Inspector writes for a Prometheus node exporter (`NCCL_INSPECTOR_PROM_DUMP=1`, NCCL 2.28.3 and newer): how long collectives took on
//! the GPU and how much they moved, which nobody sees from outside.
//!
//! Names of metrics and labels: `inspector_prom.cc` of NCCL's `plugins/profiler/inspector`, and, where they differ, of 2.28.3.

use std::{
    collections::BTreeMap,
    fs::{File, OpenOptions},
    io::{self, Read as _},
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use plumbline_exposition::{Format, Labels, Line, Lines};

use crate::series::{Point, Series, nccl};

/// One for each GPU.
const MOST_FILES: usize = 64;

/// Of one of them; it is written anew each time.
const MOST_BYTES: u64 = 4 << 20;

/// Of all files.
const MOST_POINTS: usize = 4096;

/// A file that nobody has written for so long is of a job that has ended: Inspector writes each half minute at most.
const OLD: Duration = Duration::from_secs(300);

/// Characters of a label.
const MOST_TEXT: usize = 64;

#[derive(Debug, Default)]
pub struct Inspector {
    patterns: Vec<String>,
    files: BTreeMap<PathBuf, Written>,
}

#[derive(Debug)]
struct Written {
    when: SystemTime,
    bytes: u64,
    points: Vec<Point>,
}

impl Inspector {
    pub fn of(patterns: &[String]) -> Self {
        Self { patterns: patterns.to_vec(), ..Self::default() }
    }

    /// Reads what was written anew.
    pub fn look(&mut self, now: SystemTime) {
        let paths = self.patterns.iter().filter_map(|pattern| glob::glob(pattern).ok()).flatten();
        let mut before = std::mem::take(&mut self.files);
        for path in paths.filter_map(Result::ok) {
            // Between two writings there may be none.
            let Ok((file, when, bytes)) = open(&path) else { continue };
            if self.files.len() >= MOST_FILES || now.duration_since(when).is_ok_and(|age| age > OLD) {
                continue;
            }
            let known = before.remove(&path).filter(|known| known.when == when && known.bytes == bytes);
            let written =
                known.or_else(|| Some(Written { when, bytes, points: points(&stem(&path), &read(file).ok()?) }));
            self.files.extend(written.map(|written| (path, written)));
        }
    }

    pub fn points(&self) -> impl Iterator<Item = Point> {
        let all = self.files.values().flat_map(|written| &written.points);
        let unique: BTreeMap<(&str, &[String]), &Point> =
            all.map(|point| ((point.series.name, &*point.labels), point)).collect();
        unique.into_values().take(MOST_POINTS).cloned().collect::<Vec<_>>().into_iter()
    }
}

/// A regular file, when it was written, and its size.
fn open(path: &Path) -> io::Result<(File, SystemTime, u64)> {
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY).open(path)?;
    let metadata = file.metadata()?;
    if !metadata.is_file() || metadata.size() > MOST_BYTES {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    Ok((file, metadata.modified()?, metadata.size()))
}

fn read(file: File) -> io::Result<Vec<u8>> {
    let mut page = Vec::new();
    file.take(MOST_BYTES).read_to_end(&mut page)?;
    Ok(page)
}

/// What a file is called, without what all are: the GPU's UUID, since several processes may each call theirs `GPU0`.
fn stem(path: &Path) -> String {
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    stem.trim_start_matches("nccl_inspector_metrics_").chars().take(MOST_TEXT).collect()
}

/// What is known of a page; a line that is wrong is passed over, as is the last one while it is written.
fn points(file: &str, page: &[u8]) -> Vec<Point> {
    let end = memchr::memrchr(b'\n', page).map_or(0, |end| end + 1);
    let lines = Lines::new(&page[..end], Format::Text).filter_map(Result::ok);
    let samples = lines.filter_map(|line| match line {
        Line::Sample(sample) => Some(sample),
        _ => None,
    });
    let known = samples.filter_map(|sample| {
        let (series, scale): (&'static Series, f64) = match &*sample.name.unescape() {
            "nccl_bus_bandwidth_gbs" | "nccl_p2p_bus_bandwidth_gbs" => (&nccl::INSPECTOR_BUS_BANDWIDTH, 1e9),
            "nccl_collective_exec_time_microseconds" | "nccl_p2p_exec_time_microseconds" => {
                (&nccl::INSPECTOR_DURATION, 1e-6)
            }
            _ => return None,
        };
        let labels = LABELS.map(|names| label(sample.labels, names));
        let labels: Vec<&str> = [file].into_iter().chain(labels.iter().map(String::as_str)).collect();
        sample.value.is_finite().then(|| Point::new(series, &labels, sample.value * scale))
    });
    known.take(MOST_POINTS).collect()
}

/// In the order of the series' labels, behind the file: what each version calls it.
const LABELS: [&[&str]; 6] = [
    &["gpu", "gpu_device_id"],
    &["comm_name", "comm_id"],
    &["nranks", "n_ranks"],
    &["collective", "p2p_operation"],
    &["message_size"],
    &["algo_proto"],
];

fn label(labels: Labels<'_>, names: &[&str]) -> String {
    let found = names.iter().find_map(|name| labels.get(name));
    found.map(|value| value.unescape().chars().take(MOST_TEXT).collect()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[track_caller]
    fn check(page: &str, expect: &[&str]) {
        let words = points("f", page.as_bytes()).into_iter().map(|point| {
            let name = point.series.name.trim_start_matches("plumbline_nccl_inspector_");
            format!("{name} {} {:.6}", point.labels.join("|"), point.number().unwrap())
        });
        assert_eq!(words.collect::<Vec<_>>(), expect);
    }

    #[test]
    fn a_page_is_read_as_inspector_writes_it() {
        check(
            include_str!("testdata/inspector.prom"),
            &[
                "bus_bandwidth_bytes_per_second f|GPU0|DP Group 0|4|AllReduce|4-5GB|Ring_ll 678263000000.000000",
                "duration_seconds f|GPU0|DP Group 0|4|AllReduce|4-5GB|Ring_ll 0.009498",
                "bus_bandwidth_bytes_per_second f|GPU0|DP Group 0|4|Send|512-513MB| 464900000000.000000",
                "duration_seconds f|GPU0|DP Group 0|4|Send|512-513MB| 0.001155",
            ],
        );
        // As 2.28.3 has them.
        check(
            "nccl_bus_bandwidth_gbs{comm_id=\"0xd1\",collective=\"AllReduce\",rank=\"4\",n_ranks=\"8\",gpu_device_id=\"GPU4\",message_size=\"2.00GB\"} 1\n",
            &["bus_bandwidth_bytes_per_second f|GPU4|0xd1|8|AllReduce|2.00GB| 1000000000.000000"],
        );
    }

    #[test]
    fn what_is_half_written_or_not_its_own_is_passed_over() {
        check("", &[]);
        check("nccl_bus_bandwidth_gbs{gpu=\"GPU0\"} 67", &[]);
        check("nccl_bus_bandwidth_gbs NaN\nother 1\n\u{1}\n", &[]);
    }

    #[test]
    fn a_file_that_nobody_writes_any_more_is_told_no_more() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("gpu0.prom");
        let pattern = directory.path().join("*.prom").display().to_string();
        let mut inspector = Inspector::of(&[pattern]);
        assert_eq!(stem(Path::new("/x/nccl_inspector_metrics_GPU-1.prom")), "GPU-1");
        let mut count = |later: u64| {
            inspector.look(SystemTime::now() + Duration::from_secs(later));
            inspector.points().count()
        };
        assert_eq!(count(0), 0);
        fs::write(&path, include_str!("testdata/inspector.prom")).unwrap();
        assert_eq!((count(0), count(60), count(400)), (4, 4, 0));
        fs::remove_file(&path).unwrap();
        assert_eq!(count(0), 0);
    }
}
