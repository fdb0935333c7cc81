//! What a tool inside of a process writes of its GPU's work: lines of JSON that are appended to a file, of which `trace` shows what took how
//! long.
//!
//! NCCL Inspector's own (`coll_perf`, `p2p_perf`; `inspector_json.cc` of NCCL's `plugins/profiler/inspector`), and for tools of one's own, such
//! as one that hands on CUPTI's records (`docs/cuda.md`, "What a tool in the process measures"):
//!
//! ```text
//! {"kind": "kernel", "name": "ampere_bf16_gemm", "device": 0, "start_ns": 100, "end_ns": 350, "bytes": 0}
//! ```

use std::{
    collections::BTreeMap,
    fs::{File, OpenOptions},
    io,
    os::unix::fs::{FileExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use serde::Deserialize;

/// Read at a time, and the most that one line may be.
const MOST_BYTES: usize = 4 << 20;

/// How often it is read at a time; what is beyond waits.
const MOST_READS: usize = 16;

/// Different activities that are told apart; the others are one.
const MOST_NAMES: usize = 4096;
const OTHERS: &str = "others";

/// Characters of a name: those of templates go on for pages.
const MOST_NAME: usize = 100;

/// Activities that are shown of one interval, the longest.
const SHOWN: usize = 20;

/// How often, how long in all, and how much.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Sum {
    times: u64,
    seconds: f64,
    bytes: u64,
}

/// A file that is followed from its end on.
#[derive(Debug)]
pub(super) struct Activity {
    path: PathBuf,
    file: File,
    offset: u64,
    sums: BTreeMap<String, Sum>,
    /// Lines that are no activity.
    unread: u64,
}

/// One line, in one of its shapes.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Record {
    Collective {
        coll_perf: Collective,
    },
    Transfer {
        p2p_perf: Transfer,
    },
    /// What goes before those.
    Marker {
        #[serde(rename = "dump_stats")]
        _stats: serde::de::IgnoredAny,
    },
    Own(Own),
}

#[derive(Debug, Deserialize)]
struct Collective {
    coll: String,
    coll_msg_size_bytes: u64,
    coll_exec_time_us: f64,
}

#[derive(Debug, Deserialize)]
struct Transfer {
    p2p: String,
    p2p_msg_size_bytes: u64,
    p2p_exec_time_us: f64,
}

#[derive(Debug, Deserialize)]
struct Own {
    kind: String,
    name: String,
    #[serde(default)]
    device: Option<u32>,
    start_ns: u64,
    end_ns: u64,
    #[serde(default)]
    bytes: u64,
}

impl Activity {
    pub(super) fn follow(path: &Path) -> io::Result<Self> {
        // A pipe of that name is not waited for.
        let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY).open(path)?;
        let metadata = file.metadata()?;
        if !metadata.is_file() {
            return Err(io::Error::other("it is no file"));
        }
        let offset = metadata.len();
        Ok(Self { path: path.to_owned(), file, offset, sums: BTreeMap::new(), unread: 0 })
    }

    /// What was written since the last time, in lines to show.
    pub(super) fn news(&mut self) -> io::Result<Option<String>> {
        if self.file.metadata()?.len() < self.offset {
            // It was cut off, and is written anew.
            self.offset = 0;
        }
        for _ in 0..MOST_READS {
            let mut buffer = vec![0; MOST_BYTES];
            let bytes = self.file.read_at(&mut buffer, self.offset)?;
            let end = match memchr::memrchr(b'\n', &buffer[..bytes]) {
                Some(end) => end + 1,
                // A line that is longer than any activity.
                None if bytes == MOST_BYTES => bytes,
                None => break,
            };
            buffer[..end].split(|&byte| byte == b'\n').for_each(|line| self.add(line));
            self.offset += end as u64;
        }
        let unread = std::mem::take(&mut self.unread);
        let sums = std::mem::take(&mut self.sums);
        if sums.is_empty() && unread == 0 {
            return Ok(None);
        }
        let mut lines = vec![format!("of {}:", self.path.display())];
        lines.extend(shown(sums));
        if unread > 0 {
            lines.push(format!("{unread:>16}  lines that are no activity"));
        }
        Ok(Some(lines.join("\n")))
    }

    fn add(&mut self, line: &[u8]) {
        if line.trim_ascii().is_empty() {
            return;
        }
        let (what, seconds, bytes) = match serde_json::from_slice(line) {
            Ok(Record::Collective { coll_perf: Collective { coll, coll_msg_size_bytes, coll_exec_time_us } }) => {
                (format!("collective {coll}"), coll_exec_time_us / 1e6, coll_msg_size_bytes)
            }
            Ok(Record::Transfer { p2p_perf: Transfer { p2p, p2p_msg_size_bytes, p2p_exec_time_us } }) => {
                (format!("transfer {p2p}"), p2p_exec_time_us / 1e6, p2p_msg_size_bytes)
            }
            Ok(Record::Marker { .. }) => return,
            Ok(Record::Own(Own { kind, name, device, start_ns, end_ns, bytes })) if start_ns <= end_ns => {
                let device = device.map(|device| format!(", device {device}")).unwrap_or_default();
                #[expect(clippy::cast_precision_loss, reason = "exact up to 2^53")]
                let seconds = (end_ns - start_ns) as f64 / 1e9;
                (format!("{kind} {name}{device}"), seconds, bytes)
            }
            Ok(Record::Own(_)) | Err(_) => {
                self.unread += 1;
                return;
            }
        };
        let what: String = what.chars().filter(|char| !char.is_control()).take(MOST_NAME).collect();
        let is_room = self.sums.len() < MOST_NAMES || self.sums.contains_key(&what);
        let sum = self.sums.entry(if is_room { what } else { OTHERS.to_owned() }).or_default();
        sum.times += 1;
        sum.seconds += seconds;
        sum.bytes = sum.bytes.saturating_add(bytes);
    }
}

fn shown(sums: BTreeMap<String, Sum>) -> Vec<String> {
    let mut sums: Vec<(String, Sum)> = sums.into_iter().collect();
    sums.sort_by(|(_, one), (_, other)| other.seconds.total_cmp(&one.seconds));
    let left: Vec<(String, Sum)> = sums.split_off(sums.len().min(SHOWN));
    let line = |what: &str, Sum { times, seconds, bytes }: Sum| {
        #[expect(clippy::cast_precision_loss, reason = "a count")]
        let mean_us = seconds * 1e6 / times.max(1) as f64;
        let moved = if bytes > 0 { format!(", {bytes} bytes") } else { String::new() };
        format!("{:>14.3} ms  {what}: {times} times {mean_us:.1} us{moved}", seconds * 1e3)
    };
    let rest = left.iter().fold(Sum::default(), |sum, (_, one)| Sum {
        times: sum.times + one.times,
        seconds: sum.seconds + one.seconds,
        bytes: sum.bytes.saturating_add(one.bytes),
    });
    let rest = (!left.is_empty()).then(|| line(&format!("{} more", left.len()), rest));
    sums.iter().map(|(what, sum)| line(what, *sum)).chain(rest).collect()
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    #[track_caller]
    fn check(written: &str, expect: &[&str]) {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "{\"kind\": \"kernel\", \"name\": \"before\", \"start_ns\": 1, \"end_ns\": 2}\n")
            .unwrap();
        let mut activity = Activity::follow(file.path()).unwrap();
        assert_eq!(activity.news().unwrap(), None);
        OpenOptions::new().append(true).open(file.path()).unwrap().write_all(written.as_bytes()).unwrap();
        let news = activity.news().unwrap().unwrap_or_default();
        assert_eq!(news.lines().skip(1).collect::<Vec<_>>(), expect);
        assert_eq!(activity.news().unwrap(), None);
    }

    #[test]
    fn what_cupti_would_say_is_summed_by_kind_name_and_device() {
        check(
            concat!(
                "{\"kind\": \"kernel\", \"name\": \"gemm\", \"device\": 0, \"start_ns\": 1000, \"end_ns\": 5000}\n",
                "{\"kind\": \"kernel\", \"name\": \"gemm\", \"device\": 0, \"start_ns\": 6000, \"end_ns\": 8000}\n",
                "{\"kind\": \"kernel\", \"name\": \"gemm\", \"device\": 1, \"start_ns\": 0, \"end_ns\": 1000, \"stream\": 7}\n",
                "{\"kind\": \"copy\", \"name\": \"HtoD\", \"start_ns\": 0, \"end_ns\": 9000, \"bytes\": 4096}\n",
            ),
            &[
                "         0.009 ms  copy HtoD: 1 times 9.0 us, 4096 bytes",
                "         0.006 ms  kernel gemm, device 0: 2 times 3.0 us",
                "         0.001 ms  kernel gemm, device 1: 1 times 1.0 us",
            ],
        );
    }

    #[test]
    fn inspectors_own_lines_are_read_with_and_without_what_goes_before_them() {
        check(
            concat!(
                "{\"header\": {\"id\": \"0x7f\", \"rank\": 2}, \"metadata\": {\"pid\": 7}, \"dump_stats\": {\"coll_records\": 1}}\n",
                "{\"coll_perf\": {\"coll\": \"AllReduce\", \"coll_algo\": \"RING\", \"coll_sn\": 1407, ",
                "\"coll_msg_size_bytes\": 17179869184, \"coll_exec_time_us\": 61974, \"coll_busbw_gbs\": 485.1}}\n",
                "{\"header\": {\"id\": \"0x7f\"}, \"p2p_perf\": {\"p2p\": \"Send\", \"p2p_msg_size_bytes\": 524288, \"p2p_exec_time_us\": 50}}\n",
            ),
            &[
                "        61.974 ms  collective AllReduce: 1 times 61974.0 us, 17179869184 bytes",
                "         0.050 ms  transfer Send: 1 times 50.0 us, 524288 bytes",
            ],
        );
    }

    #[test]
    fn what_is_no_activity_is_counted_and_half_a_line_waits() {
        let wrong = "no\n{}\n[1]\n{\"kind\": \"kernel\", \"name\": \"x\", \"start_ns\": 2, \"end_ns\": 1}\n{\"kind\"";
        check(wrong, &["               4  lines that are no activity"]);
        check(&"x".repeat(MOST_BYTES + 5), &["               1  lines that are no activity"]);
    }

    #[test]
    fn the_longest_are_shown_and_the_rest_is_one() {
        let sums = (0..30_u32).map(|n| (format!("kernel {n}"), Sum { times: 1, seconds: f64::from(n), bytes: 0 }));
        let shown = shown(sums.collect());
        assert_eq!(shown.len(), SHOWN + 1);
        assert!(shown[0].ends_with("kernel 29: 1 times 29000000.0 us"), "{}", shown[0]);
        assert!(shown[SHOWN].contains("10 more: 10 times"), "{}", shown[SHOWN]);
    }
}
