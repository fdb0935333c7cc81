//! Errors of NVSwitches: counted each, never sticky, and found once for each reading of the kernel's log.

use std::collections::{BTreeMap, BTreeSet};

use plumbline_policy::Severity;

use crate::{
    event::Finding,
    gpu::sxid::SxidLine,
    series::{Point, Sample, gpu::xid::NVSWITCH_ERRORS_TOTAL},
};

/// What samples of the counters are called.
const SOURCE: &str = "gpu:sxid";

const OTHER: &str = "other";

/// Numbers of all switches that are counted by themselves; what comes after is not told apart.
const MOST: usize = 256;

/// Switch, place on the bus, number, severity.
type Key = [String; 4];

/// The same error since the last findings.
#[derive(Debug, Default)]
struct Told {
    first: Option<SxidLine>,
    times: u32,
    links: BTreeSet<u32>,
}

#[derive(Debug, Default)]
pub struct Sxids {
    counts: BTreeMap<Key, u64>,
    /// What was told since the last findings, with how often.
    told: BTreeMap<Key, Told>,
}

impl Sxids {
    pub fn kernel_log(&mut self, line: SxidLine) {
        let key = [line.switch.clone(), line.pci_bus_id.clone(), line.sxid.to_string(), line.severity().to_owned()];
        let is_new = !self.counts.contains_key(&key);
        let key = if is_new && self.counts.len() >= MOST {
            [OTHER, "", OTHER, line.severity()].map(str::to_owned)
        } else {
            key
        };
        *self.counts.entry(key.clone()).or_default() += 1;
        let told = self.told.entry(key).or_default();
        told.times += 1;
        told.links.extend(line.link);
        told.first.get_or_insert(line);
    }

    pub fn findings(&mut self) -> Vec<Finding> {
        std::mem::take(&mut self.told).into_iter().filter_map(|(key, told)| finding(&key, told)).collect()
    }

    pub fn sample(&self, now_boot_ns: u64) -> Option<Sample> {
        let point = |(key, count): (&Key, &u64)| {
            #[expect(clippy::cast_precision_loss, reason = "a count")]
            let count = *count as f64;
            Point::new(&NVSWITCH_ERRORS_TOTAL, &key.each_ref().map(String::as_str), count)
        };
        let points: Vec<Point> = self.counts.iter().map(point).collect();
        (!points.is_empty()).then(|| Sample {
            source: SOURCE.to_owned(),
            taken_boot_ns: now_boot_ns,
            points: Ok(points),
        })
    }
}

fn finding([switch, pci_bus_id, sxid, _]: &Key, told: Told) -> Option<Finding> {
    let Told { first, times, links } = told;
    let line = first?;
    let severity = if line.is_fatal { Severity::Critical } else { Severity::Medium };
    let links: Vec<String> = links.iter().map(u32::to_string).collect();
    let links = match &links[..] {
        [] => String::new(),
        [link] => format!(", link {link}"),
        links => format!(", links {}", links.join(" ")),
    };
    let words = if line.is_fatal { "fatal" } else { "not fatal" };
    let times_words = if times > 1 { format!("; {times} times within a second") } else { String::new() };
    let text = if sxid == OTHER {
        format!(
            "SXIDs of several numbers and switches, {words}{times_words}; one of them {} on {}",
            line.sxid, line.switch
        )
    } else {
        format!("SXID {sxid} on {switch} ({pci_bus_id}){links}, {words}{times_words}: {}", line.text)
    };
    let evidence = vec![("sxid".to_owned(), line.sxid.into()), ("times".to_owned(), times.into())];
    Some(Finding { evidence, ..Finding::new("gpu.nvswitch", severity, switch.clone(), text) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(switch: &str, sxid: u32, is_fatal: bool) -> SxidLine {
        let (switch, pci_bus_id) = (switch.to_owned(), "0000:c1:00.0".to_owned());
        SxidLine { switch, pci_bus_id, sxid, is_fatal, link: Some(27), text: "LTSSM Fault Up".to_owned() }
    }

    fn counted(sxids: &Sxids) -> Vec<(String, f64)> {
        let points = sxids.sample(0).map(|sample| sample.points.unwrap()).unwrap_or_default();
        points.iter().map(|point| (point.labels.join(" "), point.number().unwrap())).collect()
    }

    #[test]
    fn the_same_error_again_is_one_more_and_an_avalanche_is_one_finding() {
        let mut sxids = Sxids::default();
        assert!(sxids.sample(0).is_none());
        for link in 0..100 {
            sxids.kernel_log(SxidLine { link: Some(link % 3), ..line("nvidia-nvswitch3", 20034, true) });
        }
        sxids.kernel_log(line("nvidia-nvswitch3", 12028, false));
        let found: Vec<(Severity, String)> =
            sxids.findings().into_iter().map(|finding| (finding.severity, finding.text)).collect();
        assert_eq!(found, [
            (
                Severity::Medium,
                "SXID 12028 on nvidia-nvswitch3 (0000:c1:00.0), link 27, not fatal: LTSSM Fault Up".to_owned()
            ),
            (
                Severity::Critical,
                "SXID 20034 on nvidia-nvswitch3 (0000:c1:00.0), links 0 1 2, fatal; 100 times within a second: LTSSM Fault Up"
                    .to_owned()
            ),
        ]);
        sxids.kernel_log(line("nvidia-nvswitch3", 20034, true));
        assert_eq!(sxids.findings().len(), 1);
        assert_eq!(
            counted(&sxids),
            [
                ("nvidia-nvswitch3 0000:c1:00.0 12028 non_fatal".to_owned(), 1.0),
                ("nvidia-nvswitch3 0000:c1:00.0 20034 fatal".to_owned(), 101.0),
            ]
        );
    }

    #[test]
    fn a_flood_of_numbers_is_counted_together_beyond_a_bound() {
        let mut sxids = Sxids::default();
        (0..1000).for_each(|sxid| sxids.kernel_log(line("nvidia-nvswitch0", sxid, false)));
        let counts = counted(&sxids);
        assert_eq!(counts.len(), MOST + 1);
        assert_eq!(counts.iter().map(|(_, count)| count).sum::<f64>().to_bits(), 1000_f64.to_bits());
    }
}
