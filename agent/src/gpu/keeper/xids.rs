//! XIDs from both who tell of them: counted each, never sticky, and found once, with the process that only the kernel names.
//!
//! The two do not always agree (some appear in one only), so each has a counter of its own. A finding waits for the other
//! for [`WAIT_NS`], and says who told it. Pure: time comes with the calls.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{
    event::{Finding, FoundProcess},
    gpu::{
        identity::Identity,
        xid::{XidLine, words},
    },
    series::{Point, Sample, gpu::xid::XID_ERRORS_TOTAL},
};

/// What samples of the counters are called.
pub const SOURCE: &str = "gpu:xid";

/// How long the other source may take.
const WAIT_NS: u64 = 1_000_000_000;

/// Different numbers of one GPU that are counted by themselves; the rest are `other`.
const MOST_NUMBERS: usize = 64;

const OTHER: &str = "other";

/// Who told it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Teller {
    Nvml,
    KernelLog,
}

impl Teller {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Nvml => "nvml",
            Self::KernelLog => "kernel",
        }
    }
}

/// The labels of a GPU, or of a place on the bus where the driver lists none.
type Labels = [String; 3];

#[derive(Debug, Default)]
pub struct Xids {
    counts: BTreeMap<(Labels, String, Teller), u64>,
    pending: BTreeMap<(String, u32), Pending>,
}

/// Told by one, and perhaps by the other.
#[derive(Debug, Default)]
struct Pending {
    since_boot_ns: u64,
    nvml: u32,
    kernel_log: u32,
    instances: [Option<u32>; 2],
    process: Option<FoundProcess>,
    text: String,
}

/// How often one GPU told one number, for `plumbline gpu`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct XidCount {
    pub uuid: String,
    pub xid: String,
    pub nvml: u64,
    pub kernel_log: u64,
}

impl Xids {
    /// The event set has told one.
    pub fn nvml(&mut self, gpu: &Identity, xid: u32, instances: [Option<u32>; 2], now_boot_ns: u64) {
        let pending = self.note(gpu.labels(), xid, Teller::Nvml, now_boot_ns);
        pending.nvml += 1;
        pending.instances = instances;
    }

    /// The kernel's log has told one; `gpu` is the one at that place, if the driver lists it.
    pub fn kernel_log(&mut self, gpu: Option<&Identity>, line: XidLine, now_boot_ns: u64) {
        let of_place = || {
            let pci = line.pci;
            let place = format!("PCI:{:04x}:{:02x}:{:02x}", pci.domain, pci.bus, pci.device);
            [place, String::new(), "false".to_owned()]
        };
        let labels = gpu.map_or_else(of_place, Identity::labels);
        let pending = self.note(labels, line.xid, Teller::KernelLog, now_boot_ns);
        pending.kernel_log += 1;
        if line.gpu_instance.is_some() {
            pending.instances = [line.gpu_instance, line.compute_instance];
        }
        if let Some(pid) = line.pid {
            pending.process = Some(FoundProcess { pid, name: line.name.unwrap_or_default() });
        }
        pending.text = line.text;
    }

    fn note(&mut self, labels: Labels, xid: u32, teller: Teller, now_boot_ns: u64) -> &mut Pending {
        let entity = labels[0].clone();
        let of_gpu = self.counts.keys().filter(|(other, ..)| other[0] == entity).count();
        let key = (labels, xid.to_string(), teller);
        let key = if of_gpu >= MOST_NUMBERS && !self.counts.contains_key(&key) {
            (key.0, OTHER.to_owned(), teller)
        } else {
            key
        };
        *self.counts.entry(key).or_default() += 1;
        let fresh = || Pending { since_boot_ns: now_boot_ns, ..Pending::default() };
        self.pending.entry((entity, xid)).or_insert_with(fresh)
    }

    /// What both have told by now, or one alone; `both` are there to tell.
    pub fn findings(&mut self, now_boot_ns: u64, both: bool) -> Vec<Finding> {
        let is_due = |pending: &Pending| now_boot_ns.saturating_sub(pending.since_boot_ns) >= WAIT_NS;
        let due: Vec<(String, u32)> =
            self.pending.iter().filter(|(_, pending)| is_due(pending)).map(|(key, _)| key.clone()).collect();
        due.into_iter()
            .filter_map(|key| {
                let pending = self.pending.remove(&key)?;
                Some(pending.finding(key.0, key.1, both))
            })
            .collect()
    }

    pub fn sample(&self, now_boot_ns: u64) -> Option<Sample> {
        let point = |((labels, xid, teller), count): (&(Labels, String, Teller), &u64)| {
            let [uuid, gpu, simulated] = labels;
            #[expect(clippy::cast_precision_loss, reason = "a count")]
            let count = *count as f64;
            Point::new(&XID_ERRORS_TOTAL, &[uuid, gpu, simulated, xid, teller.as_str()], count)
        };
        let points: Vec<Point> = self.counts.iter().map(point).collect();
        (!points.is_empty()).then(|| Sample {
            source: SOURCE.to_owned(),
            taken_boot_ns: now_boot_ns,
            points: Ok(points),
        })
    }

    pub fn counts(&self) -> Vec<XidCount> {
        let mut counts: BTreeMap<(&str, &str), [u64; 2]> = BTreeMap::new();
        for ((labels, xid, teller), count) in &self.counts {
            let both = counts.entry((&labels[0], xid)).or_default();
            both[usize::from(*teller == Teller::KernelLog)] += count;
        }
        let count = |((uuid, xid), [nvml, kernel_log]): ((&str, &str), [u64; 2])| XidCount {
            uuid: uuid.to_owned(),
            xid: xid.to_owned(),
            nvml,
            kernel_log,
        };
        counts.into_iter().map(count).collect()
    }
}

impl Pending {
    fn finding(self, entity: String, xid: u32, both: bool) -> Finding {
        let (words, severity) = words(xid);
        let mut text = format!("XID {xid} on {entity}: {words}");
        if let [Some(gpu_instance), compute_instance] = self.instances {
            text += &format!("; GPU instance {gpu_instance}");
            if let Some(compute_instance) = compute_instance {
                text += &format!(", compute instance {compute_instance}");
            }
        }
        if let Some(FoundProcess { pid, name }) = &self.process {
            text += &format!("; pid {pid}");
            if !name.is_empty() {
                text += &format!(" ({name})");
            }
        }
        let times = self.nvml.max(self.kernel_log);
        if times > 1 {
            text += &format!("; {times} times within a second");
        }
        match (self.nvml, self.kernel_log) {
            _ if !both => {}
            (_, 0) => text += "; told by NVML, and not by the kernel's log",
            (0, _) => text += "; told by the kernel's log, and not by NVML",
            (nvml, kernel) if nvml != kernel => text += &format!("; {nvml} told by NVML, {kernel} by the kernel's log"),
            _ => {}
        }
        if !self.text.is_empty() {
            text += &format!(": {}", self.text);
        }
        let evidence = vec![
            ("xid".to_owned(), xid.into()),
            ("told_by_nvml".to_owned(), self.nvml.into()),
            ("told_by_kernel_log".to_owned(), self.kernel_log.into()),
        ];
        Finding { evidence, process: self.process, ..Finding::new("gpu.xid", severity, entity, text) }
    }
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::*;

    const SECOND_NS: u64 = 1_000_000_000;
    const PAGE_FAULT: &str = "NVRM: Xid (PCI:0000:1b:00): 31, pid=4242, name=python3, Ch 00000008";

    fn gpu() -> Identity {
        Identity { uuid: "GPU-1".to_owned(), pci_bus_id: "00000000:1B:00.0".to_owned(), ..Identity::default() }
    }

    fn line(text: &str) -> XidLine {
        XidLine::parse(text.as_bytes()).unwrap()
    }

    fn told(xids: &mut Xids, at_ns: u64) -> String {
        xids.findings(at_ns, true)
            .into_iter()
            .map(|finding| format!("{} {}\n", finding.severity.as_str(), finding.text))
            .collect()
    }

    fn check(text: &str, expect: &Expect) {
        expect.assert_eq(text);
    }

    #[test]
    fn one_that_both_tell_is_one_finding_with_its_process() {
        let mut xids = Xids::default();
        xids.nvml(&gpu(), 31, [None, None], 0);
        assert_eq!(told(&mut xids, SECOND_NS / 2), "");
        xids.kernel_log(Some(&gpu()), line(PAGE_FAULT), SECOND_NS / 2);
        check(
            &told(&mut xids, SECOND_NS),
            &expect![[r#"
            low XID 31 on GPU-1: memory page fault of a program on the GPU; pid 4242 (python3): Ch 00000008
        "#]],
        );
        assert_eq!(told(&mut xids, 5 * SECOND_NS), "", "never sticky");
    }

    #[test]
    fn one_that_only_one_tells_says_so() {
        let mut xids = Xids::default();
        xids.nvml(&gpu(), 79, [Some(7), Some(0)], 0);
        xids.kernel_log(Some(&gpu()), line("NVRM: Xid (PCI:0000:1b:00): 62, halted"), 0);
        xids.kernel_log(None, line("NVRM: Xid (PCI:0000:ff:00): 143, init"), 0);
        check(
            &told(&mut xids, SECOND_NS),
            &expect![[r#"
            high XID 62 on GPU-1: internal microcontroller halt; told by the kernel's log, and not by NVML: halted
            critical XID 79 on GPU-1: the GPU has fallen off the bus; GPU instance 7, compute instance 0; told by NVML, and not by the kernel's log
            critical XID 143 on PCI:0000:ff:00: the GPU could not be initialised; told by the kernel's log, and not by NVML: init
        "#]],
        );
    }

    #[test]
    fn the_same_again_counts_and_is_told_again() {
        let mut xids = Xids::default();
        for at in [0, 1, 2] {
            xids.nvml(&gpu(), 13, [None, None], at);
        }
        xids.kernel_log(Some(&gpu()), line("NVRM: Xid (PCI:0000:1b:00): 13, pid=7, name=a, x"), 3);
        check(
            &told(&mut xids, SECOND_NS),
            &expect![[r#"
            low XID 13 on GPU-1: graphics engine exception, mostly of the program's making; pid 7 (a); 3 times within a second; 3 told by NVML, 1 by the kernel's log: x
        "#]],
        );
        xids.nvml(&gpu(), 13, [None, None], 10 * SECOND_NS);
        assert_ne!(told(&mut xids, 11 * SECOND_NS), "");
        let counts = xids.counts();
        assert_eq!((counts.len(), counts[0].nvml, counts[0].kernel_log), (1, 4, 1));
        let labels: Vec<String> =
            xids.sample(0).unwrap().points.unwrap().iter().map(|point| point.labels[3..].join(" ")).collect();
        assert_eq!(labels, ["13 nvml", "13 kernel"]);
    }

    #[test]
    fn a_flood_of_numbers_ends_in_other() {
        let mut xids = Xids::default();
        (1000..2000).for_each(|xid| xids.nvml(&gpu(), xid, [None, None], 0));
        let counts = xids.counts();
        assert_eq!((counts.len(), counts.iter().map(|count| count.nvml).sum::<u64>()), (MOST_NUMBERS + 1, 1000));
    }
}
