//! InfiniBand and RoCE ports: `/sys/class/infiniband/DEVICE/ports/N`, which every RDMA driver of the kernel fills
//! (Documentation/ABI/stable/sysfs-class-infiniband).
//!
//! Drivers have different counters, some have no `counters/` at all, and some answer `N/A (no PMA)`, EINVAL or EOPNOTSUPP: what
//! cannot be read is absent. What a driver has beside what is known here is told by its own name. Those of `hw_counters`
//! are of 32 bits with many drivers, and wrap.

use std::{
    collections::HashMap,
    fs, io,
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use tokio::sync::mpsc;

use crate::{
    clock,
    halt::Halt,
    message::Message,
    series::{
        Point, Sample,
        infiniband::{
            BYTES_TOTAL, COUNTER_TOTAL, PACKETS_TOTAL, PORT_RATE_BYTES_PER_SECOND, PORT_UP, WAIT_TICKS_TOTAL,
        },
    },
};

/// What samples of the ports are called.
const SOURCE: &str = "infiniband";

const ROOT: &str = "/sys/class/infiniband";

/// Each is a file of its own, and eight ports have a thousand: more often would be a cost of its own.
const EVERY: Duration = Duration::from_secs(5);

/// When nothing is there, it is looked for again.
const LOOK_AGAIN: Duration = Duration::from_secs(60);

/// Ports and counters of one port that are told; a tree that has more is not believed.
const MOST_PORTS: usize = 64;
const MOST_COUNTERS: usize = 128;

/// A file of sysfs is at most a page.
const MOST_BYTES: usize = 4096;

/// Reads on a thread of its own, until the halt or until nobody receives any more; once, when there is no port.
///
/// A read may wait for a driver's firmware for good. So nobody waits for the thread, and it keeps no channel open.
pub fn spawn(out: &mpsc::Sender<Message>, halt: Halt) -> io::Result<()> {
    let weak = out.downgrade();
    let work = move || {
        let mut ports = Ports::here();
        let mut was_there = None;
        while !halt.is_halted() {
            let taken_boot_ns = clock::boot_ns();
            let points = ports.read();
            let is_there = points.is_ok();
            // A node without such ports is no news every minute.
            if is_there || was_there != Some(false) {
                let Some(out) = weak.upgrade() else { return };
                let sample = Sample { source: SOURCE.to_owned(), taken_boot_ns, points };
                if out.blocking_send(Message::Sample(sample)).is_err() {
                    return;
                }
            }
            was_there = Some(is_there);
            halt.wait(if is_there { EVERY } else { LOOK_AGAIN });
        }
    };
    thread::Builder::new().name("infiniband".to_owned()).spawn(work).map(drop)
}

/// The ports below one directory, and the counters that wrap.
#[derive(Debug)]
pub struct Ports {
    root: PathBuf,
    wrapped: HashMap<PathBuf, Wrapped>,
}

/// A counter that may be of 32 bits.
#[derive(Debug, Clone, Copy, Default)]
struct Wrapped {
    last: u64,
    turns: u64,
    is_wide: bool,
}

impl Ports {
    /// This machine's.
    pub fn here() -> Self {
        Self::new(PathBuf::from(ROOT))
    }

    pub fn new(root: PathBuf) -> Self {
        Self { root, wrapped: HashMap::new() }
    }

    /// Every port's numbers, or why there are none.
    pub fn read(&mut self) -> Result<Vec<Point>, String> {
        let devices = names(&self.root).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => "absent (the kernel has no InfiniBand or RoCE device)".to_owned(),
            _ => format!("absent ({}: {error})", self.root.display()),
        })?;
        let mut points = Vec::new();
        let ports = devices.iter().flat_map(|device| {
            let directory = self.root.join(device).join("ports");
            let numbers = names(&directory).unwrap_or_default();
            numbers.into_iter().map(move |port| (device.clone(), port)).collect::<Vec<_>>()
        });
        let ports: Vec<(String, String)> = ports.take(MOST_PORTS).collect();
        if ports.is_empty() {
            return Err("absent (the kernel has no InfiniBand or RoCE port)".to_owned());
        }
        for (device, port) in &ports {
            self.port(device, port, &mut points);
        }
        Ok(points)
    }

    fn port(&mut self, device: &str, port: &str, points: &mut Vec<Point>) {
        let directory = self.root.join(device).join("ports").join(port);
        let layer = text(&directory.join("link_layer")).unwrap_or_default();
        let labels = [device, port, &layer];
        if let Some(state) = text(&directory.join("state")) {
            points.push(Point::new(&PORT_UP, &labels, if is_active(&state) { 1.0 } else { 0.0 }));
        }
        if let Some(rate) = text(&directory.join("rate")).and_then(|rate| bytes_per_second(&rate)) {
            points.push(Point::new(&PORT_RATE_BYTES_PER_SECOND, &labels, rate));
        }
        for kind in ["counters", "hw_counters"] {
            let counters = names(&directory.join(kind)).unwrap_or_default();
            for name in counters.iter().take(MOST_COUNTERS) {
                let file = directory.join(kind).join(name);
                let Some(number) = text(&file).and_then(|number| number.parse::<u64>().ok()) else { continue };
                // Those of `counters` are of 64 bits, or stay at their highest.
                let number =
                    if kind == "hw_counters" { self.wrapped.entry(file).or_default().advance(number) } else { number };
                points.extend(counter(&labels, name, number));
            }
        }
    }
}

fn counter(labels: &[&str; 3], name: &str, number: u64) -> Option<Point> {
    // No counter: how long the driver keeps what it has read.
    if name == "lifespan" {
        return None;
    }
    #[expect(clippy::cast_precision_loss, reason = "exact up to 2^53: 9 PB")]
    let number = number as f64;
    let [device, port, layer] = *labels;
    let with = |last: &str, series, number| Some(Point::new(series, &[device, port, layer, last], number));
    match name {
        // In units of four bytes, whatever the file's name says (InfiniBand Architecture Specification, PortCounters).
        "port_xmit_data" => with("transmit", &BYTES_TOTAL, number * 4.0),
        "port_rcv_data" => with("receive", &BYTES_TOTAL, number * 4.0),
        "port_xmit_packets" => with("transmit", &PACKETS_TOTAL, number),
        "port_rcv_packets" => with("receive", &PACKETS_TOTAL, number),
        "port_xmit_wait" => Some(Point::new(&WAIT_TICKS_TOTAL, labels, number)),
        other => with(other, &COUNTER_TOTAL, number),
    }
}

impl Wrapped {
    /// One that fell from the upper half of 32 bits has wrapped; one that fell otherwise began anew, and one that was ever higher
    /// is of 64 bits.
    fn advance(&mut self, now: u64) -> u64 {
        const HALF: u64 = 1 << 31;
        const WHOLE: u64 = 1 << 32;
        self.is_wide |= now >= WHOLE;
        if now < self.last {
            self.turns = if (HALF..WHOLE).contains(&self.last) { self.turns.saturating_add(1) } else { 0 };
        }
        self.last = now;
        if self.is_wide { now } else { self.turns.saturating_mul(WHOLE).saturating_add(now) }
    }
}

/// `4: ACTIVE`.
fn is_active(state: &str) -> bool {
    state.split(':').next().is_some_and(|number| number.trim() == "4")
}

/// `400 Gb/sec (4X NDR)`, `2.5 Gb/sec (1X SDR)`.
fn bytes_per_second(rate: &str) -> Option<f64> {
    let (number, unit) = rate.split_once(' ')?;
    let gigabits: f64 = number.parse().ok().filter(|number: &f64| number.is_finite() && *number >= 0.0)?;
    unit.starts_with("Gb/sec").then_some(gigabits * 1e9 / 8.0)
}

/// The names in a directory, in order; those that are no text are nobody's.
fn names(directory: &Path) -> io::Result<Vec<String>> {
    let entries = fs::read_dir(directory)?.flatten();
    let mut names: Vec<String> = entries.filter_map(|entry| entry.file_name().into_string().ok()).collect();
    names.sort();
    Ok(names)
}

fn text(file: &Path) -> Option<String> {
    let bytes = fs::read(file).ok().filter(|bytes| bytes.len() <= MOST_BYTES)?;
    String::from_utf8(bytes).ok().map(|text| text.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::*;

    /// A sysfs with these files below `mlx5_0/ports/1`.
    fn sysfs(files: &[(&str, &str)]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), files);
        dir
    }

    fn write(root: &Path, files: &[(&str, &str)]) {
        for (name, content) in files {
            let file = root.join("mlx5_0/ports/1").join(name);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, content).unwrap();
        }
    }

    fn render(points: Result<Vec<Point>, String>) -> String {
        let line = |point: Point| {
            format!(
                "{}{:?} {}\n",
                point.series.name.trim_start_matches("plumbline_infiniband_"),
                &point.labels[2..],
                point.number().unwrap()
            )
        };
        points.map_or_else(|why| why + "\n", |points| points.into_iter().map(line).collect())
    }

    fn check(files: &[(&str, &str)], expect: &Expect) {
        expect.assert_eq(&render(Ports::new(sysfs(files).path().to_owned()).read()));
    }

    #[test]
    fn a_port_as_mlx5_tells_of_it() {
        check(
            &[
                ("state", "4: ACTIVE\n"),
                ("phys_state", "5: LinkUp\n"),
                ("rate", "400 Gb/sec (4X NDR)\n"),
                ("link_layer", "InfiniBand\n"),
                ("counters/port_xmit_data", "250\n"),
                ("counters/port_rcv_data", "500\n"),
                ("counters/port_xmit_packets", "7\n"),
                ("counters/port_rcv_packets", "8\n"),
                ("counters/port_xmit_wait", "3\n"),
                ("counters/link_downed", "1\n"),
                ("hw_counters/out_of_sequence", "9\n"),
                ("hw_counters/rp_cnp_handled", "11\n"),
                ("hw_counters/lifespan", "10\n"),
            ],
            &expect![[r#"
                port_up["InfiniBand"] 1
                port_rate_bytes_per_second["InfiniBand"] 50000000000
                counter_total["InfiniBand", "link_downed"] 1
                bytes_total["InfiniBand", "receive"] 2000
                packets_total["InfiniBand", "receive"] 8
                bytes_total["InfiniBand", "transmit"] 1000
                packets_total["InfiniBand", "transmit"] 7
                wait_ticks_total["InfiniBand"] 3
                counter_total["InfiniBand", "out_of_sequence"] 9
                counter_total["InfiniBand", "rp_cnp_handled"] 11
            "#]],
        );
    }

    #[test]
    fn what_a_driver_does_not_tell_is_absent() {
        check(
            &[
                ("state", "1: DOWN\n"),
                ("rate", "N/A\n"),
                ("link_layer", "Ethernet\n"),
                ("counters/port_xmit_data", "N/A (no PMA)\n"),
                ("counters/symbol_error", "-1\n"),
                ("counters/VL15_dropped", "99999999999999999999999\n"),
                ("hw_counters/rx_write_requests", "\u{0}"),
            ],
            &expect![[r#"
                port_up["Ethernet"] 0
            "#]],
        );
    }

    #[test]
    fn a_node_without_ports_says_why() {
        let nowhere = render(Ports::new(PathBuf::from("/nonexistent")).read());
        assert_eq!(nowhere, "absent (the kernel has no InfiniBand or RoCE device)\n");
        let empty = tempfile::tempdir().unwrap();
        assert_eq!(
            render(Ports::new(empty.path().to_owned()).read()),
            "absent (the kernel has no InfiniBand or RoCE port)\n"
        );
    }

    #[test]
    fn a_counter_of_32_bits_goes_on_and_one_that_was_reset_begins_anew() {
        let dir = sysfs(&[("hw_counters/out_of_buffer", "4294967290\n")]);
        let mut ports = Ports::new(dir.path().to_owned());
        let mut next = |number: &str| {
            write(dir.path(), &[("hw_counters/out_of_buffer", number)]);
            ports.read().unwrap()[0].number().unwrap()
        };
        let told = ["4294967290", "4", "5", "2"].map(&mut next);
        assert_eq!(told, [4_294_967_290.0, 4_294_967_300.0, 4_294_967_301.0, 2.0]);
        // One of 64 bits that a driver resets has not wrapped.
        let told = ["5000000000", "3000000000", "7"].map(&mut next);
        assert_eq!(told, [5e9, 3e9, 7.0]);
    }

    #[test]
    fn rates_and_states() {
        let rates = ["400 Gb/sec (4X NDR)", "2.5 Gb/sec (1X SDR)", "nan Gb/sec", "-1 Gb/sec", "400", "400 furlongs"];
        assert_eq!(rates.map(bytes_per_second), [Some(5e10), Some(312_500_000.0), None, None, None, None]);
        assert_eq!(["4: ACTIVE", "1: DOWN", "", "40: X"].map(is_active), [true, false, false, false]);
    }
}
