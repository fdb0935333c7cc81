//! One control group's files → numbers, of v2 (Documentation/admin-guide/cgroup-v2.rst) and of v1
//! (Documentation/admin-guide/cgroup-v1/). Which controllers there are, differs from node to node and from group to group:
//! what is not there is absent.

use std::{
    collections::BTreeMap,
    fs,
    io::Read as _,
    path::{Path, PathBuf},
};

use crate::series::{
    Series,
    container::{
        CPU_LIMIT_CORES, CPU_PERIODS_TOTAL, CPU_SECONDS_TOTAL, CPU_THROTTLED_PERIODS_TOTAL,
        CPU_THROTTLED_SECONDS_TOTAL, IO_BYTES_TOTAL, MEMORY_LIMIT_BYTES, MEMORY_USAGE_BYTES, MEMORY_WORKING_SET_BYTES,
        OOM_KILLS_TOTAL, PRESSURE_SECONDS_TOTAL, PROCESSES,
    },
};

/// A file of a group is a page or little more; `io.stat` has a line for each device.
const MOST_BYTES: u64 = 64 * 1024;

/// v1 writes the greatest whole number of pages where there is no limit; no machine has as much.
const NO_LIMIT_BYTES: f64 = (1_u64 << 60) as f64;

/// A number: its series, the labels after `engine`, the value.
pub type Number = (&'static Series, Vec<&'static str>, f64);

/// Where the hierarchies are: by v1 controller, and v2 under the empty name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Mounts(BTreeMap<String, PathBuf>);

impl Mounts {
    pub fn here() -> Self {
        Self::parse(&fs::read_to_string("/proc/self/mountinfo").unwrap_or_default())
    }

    /// proc_pid_mountinfo(5): `id parent dev root mount-point options [tags…] - fstype source super-options`.
    fn parse(mountinfo: &str) -> Self {
        let mut mounts = BTreeMap::new();
        for line in mountinfo.lines() {
            let Some((front, back)) = line.split_once(" - ") else { continue };
            let (Some(at), mut back) = (front.split(' ').nth(4), back.split(' ')) else { continue };
            match (back.next(), back.nth(1)) {
                (Some("cgroup2"), _) => drop(mounts.entry(String::new()).or_insert_with(|| at.into())),
                (Some("cgroup"), Some(options)) => {
                    for controller in options.split(',') {
                        mounts.entry(controller.to_owned()).or_insert_with(|| at.into());
                    }
                }
                _ => {}
            }
        }
        Self(mounts)
    }

    /// The directory of a process's group in each hierarchy, by `/proc/PID/cgroup`; of a container's group that of the whole
    /// container, which may have groups of its own within.
    pub fn groups(&self, file: &[u8], container: Option<&str>) -> Groups {
        let text = String::from_utf8_lossy(file);
        let mut groups = BTreeMap::new();
        for line in text.lines() {
            let mut fields = line.splitn(3, ':');
            let (Some(_), Some(controllers), Some(path)) = (fields.next(), fields.next(), fields.next()) else {
                continue;
            };
            // The root is the whole node, and no group of the engine's; `..` is outside of what we are shown of the hierarchy.
            if path == "/" || path.split('/').any(|part| part == "..") {
                continue;
            }
            let path = container.and_then(|id| Some(path.split_at(path.find(id)? + id.len()))).map_or(
                path,
                |(before, rest)| {
                    let end = before.len() + rest.find('/').unwrap_or(rest.len());
                    &path[..end]
                },
            );
            for controller in controllers.split(',') {
                if let Some(mount) = self.0.get(controller) {
                    groups.insert(controller.to_owned(), mount.join(path.trim_start_matches('/')));
                }
            }
        }
        Groups(groups)
    }
}

/// The directories of one group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Groups(BTreeMap<String, PathBuf>);

impl Groups {
    pub fn read(&self) -> Vec<Number> {
        let mut numbers = Vec::new();
        if let Some(v2) = self.0.get("") {
            read_v2(&Files(v2), &mut numbers);
        }
        read_v1(|controller| self.0.get(controller).map(|path| Files(path)), &mut numbers);
        // A hybrid node has a controller in one hierarchy only, but for the CPU time, which v2 always tells.
        let mut seen = Vec::new();
        numbers.retain(|(series, labels, _)| {
            let is_new = !seen.contains(&(series.name, labels.clone()));
            seen.push((series.name, labels.clone()));
            is_new
        });
        numbers
    }
}

struct Files<'a>(&'a Path);

impl Files<'_> {
    fn text(&self, name: &str) -> Option<String> {
        let mut bytes = Vec::new();
        fs::File::open(self.0.join(name)).ok()?.take(MOST_BYTES).read_to_end(&mut bytes).ok()?;
        String::from_utf8(bytes).ok()
    }

    fn number(&self, name: &str) -> Option<f64> {
        number(&self.text(name)?)
    }

    /// The value of a line `key value`.
    fn value(&self, name: &str, key: &str) -> Option<f64> {
        keyed(&self.text(name)?, key)
    }
}

/// Not negative; `max` is none.
fn number(text: &str) -> Option<f64> {
    text.trim().parse::<u64>().ok().map(lossy)
}

#[expect(clippy::cast_precision_loss, reason = "bytes and nanoseconds beyond 2^53 need no last digit")]
fn lossy(number: u64) -> f64 {
    number as f64
}

fn keyed(text: &str, key: &str) -> Option<f64> {
    text.lines().find_map(|line| number(line.strip_prefix(key)?.strip_prefix(' ')?))
}

fn read_v2(files: &Files<'_>, numbers: &mut Vec<Number>) {
    let mut tell = |series, labels: &[&'static str], value: Option<f64>| {
        numbers.extend(value.map(|value| (series, labels.to_vec(), value)));
    };
    let cpu = files.text("cpu.stat").unwrap_or_default();
    for (mode, key) in [("user", "user_usec"), ("system", "system_usec")] {
        tell(&CPU_SECONDS_TOTAL, &[mode], keyed(&cpu, key).map(|us| us / 1e6));
    }
    let limit = files.text("cpu.max").and_then(|text| {
        let (quota, period) = text.trim().split_once(' ')?;
        Some(number(quota)? / number(period).filter(|period| *period > 0.0)?)
    });
    tell(&CPU_LIMIT_CORES, &[], limit);
    if limit.is_some() {
        tell(&CPU_PERIODS_TOTAL, &[], keyed(&cpu, "nr_periods"));
        tell(&CPU_THROTTLED_PERIODS_TOTAL, &[], keyed(&cpu, "nr_throttled"));
        tell(&CPU_THROTTLED_SECONDS_TOTAL, &[], keyed(&cpu, "throttled_usec").map(|us| us / 1e6));
    }
    let memory = files.number("memory.current");
    tell(&MEMORY_USAGE_BYTES, &[], memory);
    let inactive = files.value("memory.stat", "inactive_file");
    tell(&MEMORY_WORKING_SET_BYTES, &[], memory.zip(inactive).map(|(all, inactive)| (all - inactive).max(0.0)));
    tell(&MEMORY_LIMIT_BYTES, &[], files.number("memory.max"));
    tell(&OOM_KILLS_TOTAL, &[], files.value("memory.events", "oom_kill"));
    for (resource, file) in [("cpu", "cpu.pressure"), ("memory", "memory.pressure"), ("io", "io.pressure")] {
        let text = files.text(file).unwrap_or_default();
        for kind in ["some", "full"] {
            let line = text.lines().find_map(|line| line.strip_prefix(kind)?.strip_prefix(' '));
            let total = line.and_then(|line| line.split(' ').find_map(|part| number(part.strip_prefix("total=")?)));
            tell(&PRESSURE_SECONDS_TOTAL, &[resource, kind], total.map(|us| us / 1e6));
        }
    }
    if let Some(text) = files.text("io.stat") {
        for (direction, key) in [("read", "rbytes="), ("write", "wbytes=")] {
            let bytes = text.split_ascii_whitespace().filter_map(|part| number(part.strip_prefix(key)?)).sum();
            tell(&IO_BYTES_TOTAL, &[direction], Some(bytes));
        }
    }
    tell(&PROCESSES, &[], files.number("pids.current"));
}

fn read_v1<'a>(of: impl Fn(&str) -> Option<Files<'a>>, numbers: &mut Vec<Number>) {
    let mut tell = |series, labels: &[&'static str], value: Option<f64>| {
        numbers.extend(value.map(|value| (series, labels.to_vec(), value)));
    };
    if let Some(files) = of("cpuacct") {
        for (mode, file) in [("user", "cpuacct.usage_user"), ("system", "cpuacct.usage_sys")] {
            tell(&CPU_SECONDS_TOTAL, &[mode], files.number(file).map(|ns| ns / 1e9));
        }
    }
    if let Some(files) = of("cpu") {
        // -1 where there is none, which is no number here.
        let quota = files.number("cpu.cfs_quota_us");
        let period = files.number("cpu.cfs_period_us").filter(|period| *period > 0.0);
        let limit = quota.zip(period).map(|(quota, period)| quota / period);
        tell(&CPU_LIMIT_CORES, &[], limit);
        if limit.is_some() {
            tell(&CPU_PERIODS_TOTAL, &[], files.value("cpu.stat", "nr_periods"));
            tell(&CPU_THROTTLED_PERIODS_TOTAL, &[], files.value("cpu.stat", "nr_throttled"));
            tell(&CPU_THROTTLED_SECONDS_TOTAL, &[], files.value("cpu.stat", "throttled_time").map(|ns| ns / 1e9));
        }
    }
    if let Some(files) = of("memory") {
        let memory = files.number("memory.usage_in_bytes");
        tell(&MEMORY_USAGE_BYTES, &[], memory);
        let inactive = files.value("memory.stat", "total_inactive_file");
        tell(&MEMORY_WORKING_SET_BYTES, &[], memory.zip(inactive).map(|(all, inactive)| (all - inactive).max(0.0)));
        tell(&MEMORY_LIMIT_BYTES, &[], files.number("memory.limit_in_bytes").filter(|limit| *limit < NO_LIMIT_BYTES));
        tell(&OOM_KILLS_TOTAL, &[], files.value("memory.oom_control", "oom_kill"));
    }
    if let Some(text) = of("blkio").and_then(|files| files.text("blkio.throttle.io_service_bytes")) {
        for (direction, key) in [("read", "Read"), ("write", "Write")] {
            let of_device = |line: &str| {
                let mut words = line.split_ascii_whitespace();
                (words.nth(1)? == key).then(|| number(words.next()?))?
            };
            tell(&IO_BYTES_TOTAL, &[direction], Some(text.lines().filter_map(of_device).sum()));
        }
    }
    tell(&PROCESSES, &[], of("pids").and_then(|files| files.number("pids.current")));
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};
    use proptest::prelude::*;

    use super::*;

    const ID: &str = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";

    /// A made-up tree of `(path, content)`, the mounts in it, the process's group; what is told of it.
    #[expect(clippy::needless_pass_by_value, reason = "expect! makes a value")]
    fn check(files: &[(&str, &str)], mountinfo: &str, group: &str, expect: Expect) {
        let root = tempfile::tempdir().expect("a temporary folder");
        for (path, text) in files {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().expect("a parent")).expect("a folder");
            fs::write(path, text).expect("a file");
        }
        let mounts = Mounts::parse(&mountinfo.replace("ROOT", &root.path().display().to_string()));
        let numbers = mounts.groups(group.as_bytes(), Some(ID)).read();
        let say = |(series, labels, value): &Number| {
            format!("{}{labels:?} {value}\n", series.name.trim_start_matches("plumbline_container_"))
        };
        expect.assert_eq(&numbers.iter().map(say).collect::<String>());
    }

    #[test]
    fn a_container_of_cgroup_v2_is_read_whole_not_the_group_within() {
        let group = format!("k/cri-containerd-{ID}.scope");
        let file = |name: &str| format!("{group}/{name}");
        let files = [
            ("cpu.stat", "usage_usec 3000000\nuser_usec 2000000\nsystem_usec 1000000\nnr_periods 10\nnr_throttled 4\nthrottled_usec 250000\n"),
            ("cpu.max", "150000 100000\n"),
            ("memory.current", "1000\n"),
            ("memory.max", "max\n"),
            ("memory.stat", "anon 1\ninactive_file 300\n"),
            ("memory.events", "oom 3\noom_kill 2\noom_group_kill 0\n"),
            ("cpu.pressure", "some avg10=0.00 avg60=0.00 avg300=0.00 total=5000000\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=0\n"),
            ("io.stat", "8:0 rbytes=100 wbytes=7 rios=1 wios=1 dbytes=0 dios=0\n8:16 rbytes=50 wbytes=1\n"),
            ("pids.current", "12\n"),
        ]
        .map(|(name, text)| (file(name), text));
        let files: Vec<(&str, &str)> = files.iter().map(|(name, text)| (name.as_str(), *text)).collect();
        check(
            &files,
            "30 23 0:26 / ROOT rw shared:9 - cgroup2 cgroup2 rw,nsdelegate",
            &format!("0::/{group}/init"),
            expect![[r#"
                cpu_seconds_total["user"] 2
                cpu_seconds_total["system"] 1
                cpu_limit_cores[] 1.5
                cpu_periods_total[] 10
                cpu_throttled_periods_total[] 4
                cpu_throttled_seconds_total[] 0.25
                memory_usage_bytes[] 1000
                memory_working_set_bytes[] 700
                oom_kills_total[] 2
                pressure_seconds_total["cpu", "some"] 5
                pressure_seconds_total["cpu", "full"] 0
                io_bytes_total["read"] 150
                io_bytes_total["write"] 8
                processes[] 12
            "#]],
        );
    }

    #[test]
    fn a_process_of_cgroup_v1_is_read_from_each_controller() {
        check(
            &[
                ("cpu/a/cpu.cfs_quota_us", "-1\n"),
                ("cpu/a/cpu.cfs_period_us", "100000\n"),
                ("cpu/a/cpu.stat", "nr_periods 0\nnr_throttled 0\nthrottled_time 0\n"),
                ("cpu/a/cpuacct.usage_user", "1500000000\n"),
                ("cpu/a/cpuacct.usage_sys", "500000000\n"),
                ("memory/b/memory.usage_in_bytes", "500\n"),
                ("memory/b/memory.limit_in_bytes", "9223372036854771712\n"),
                ("memory/b/memory.stat", "inactive_file 7\ntotal_inactive_file 100\n"),
                ("memory/b/memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 1\n"),
                (
                    "blkio/c/blkio.throttle.io_service_bytes",
                    "8:0 Read 5\n8:0 Write 6\n8:0 Sync 1\n8:16 Read 1\nTotal 12\n",
                ),
                ("pids/pids.current", "3\n"),
            ],
            "1 2 0:1 / ROOT/cpu rw - cgroup cgroup rw,cpu,cpuacct\n1 2 0:1 / ROOT/memory rw - cgroup cgroup rw,memory\n\
             1 2 0:1 / ROOT/blkio rw - cgroup cgroup rw,blkio\n1 2 0:1 / ROOT/pids rw - cgroup cgroup rw,pids\nnonsense - cgroup\n",
            "4:memory:/b\n3:cpu,cpuacct:/a\n2:blkio:/c\n1:pids:/\n0::/\n",
            expect![[r#"
                cpu_seconds_total["user"] 1.5
                cpu_seconds_total["system"] 0.5
                memory_usage_bytes[] 500
                memory_working_set_bytes[] 400
                oom_kills_total[] 1
                io_bytes_total["read"] 6
                io_bytes_total["write"] 6
            "#]],
        );
    }

    #[test]
    fn the_whole_node_and_what_is_not_shown_are_no_group_of_an_engines() {
        check(&[("pids.current", "3\n")], "30 23 0:26 / ROOT rw - cgroup2 none rw", "0::/", expect![""]);
        check(&[("pids.current", "3\n")], "30 23 0:26 / ROOT rw - cgroup2 none rw", "0::/../x", expect![""]);
    }

    proptest! {
        #[test]
        fn no_file_of_the_kernel_is_too_broken(text in "[a-z0-9:/., =\\n-]{0,200}") {
            let root = tempfile::tempdir().expect("a temporary folder");
            for name in ["cpu.stat", "cpu.max", "memory.current", "io.stat", "cpu.pressure", "memory.stat"] {
                fs::write(root.path().join(name), &text).expect("a file");
            }
            let mounts = Mounts::parse(&format!("1 1 1 / {} rw - cgroup2 none rw\n{text}", root.path().display()));
            for (_, _, value) in mounts.groups(b"0::/.", None).read() {
                prop_assert!(value.is_finite() && value >= 0.0);
            }
            let _ = mounts.groups(text.as_bytes(), Some("a")).read();
        }
    }
}
