//! How much of a process's NCCL is seen when it is done, and not only when it was recorded into a graph.

use std::collections::BTreeMap;

use super::super::account::of_process;
use crate::series::{Point, cuda, nccl};

/// What was counted of one process.
#[derive(Debug, Default)]
struct Counted {
    seen: f64,
    recorded: f64,
    recordings: f64,
    launches: f64,
}

/// A launch of a graph is taken to replay what one recording holds on average: which graph it was is not looked at.
pub fn points(points: &[Point]) -> Vec<Point> {
    let mut by_process: BTreeMap<u32, Counted> = BTreeMap::new();
    for point in points {
        let Some((pid, number)) = point.labels.first().and_then(|pid| pid.parse().ok()).zip(point.number()) else {
            continue;
        };
        let last = point.labels.last().map(String::as_str);
        let mut add = |to: fn(&mut Counted) -> &mut f64| *to(by_process.entry(pid).or_default()) += number;
        if *point.series == nccl::CALLS_TOTAL {
            add(if last == Some("true") { |counted| &mut counted.recorded } else { |counted| &mut counted.seen });
        } else if *point.series == cuda::CALLS_TOTAL && last == Some("capture_end") {
            add(|counted| &mut counted.recordings);
        } else if *point.series == cuda::CALLS_TOTAL && last == Some("graph_launch") {
            add(|counted| &mut counted.launches);
        }
    }
    let calls = by_process.into_iter().filter(|(_, counted)| counted.seen + counted.recorded > 0.0);
    calls.filter_map(|(pid, counted)| Some(of_process(&nccl::VISIBLE_RATIO, pid, &[], counted.visible()?))).collect()
}

impl Counted {
    /// `None` while nothing was done.
    fn visible(&self) -> Option<f64> {
        let replayed = if self.recordings > 0.0 { self.launches * self.recorded / self.recordings } else { 0.0 };
        let done = self.seen + replayed;
        (done > 0.0).then(|| self.seen / done)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Collectives that were seen and recorded, recordings, and launches of graphs; and the share that was seen.
    #[track_caller]
    fn check([seen, recorded, recordings, launches]: [f64; 4], expect: Option<f64>) {
        let of_nccl =
            |captured: &str, count| of_process(&nccl::CALLS_TOTAL, 7, &["0xc", "0", "all_reduce", captured], count);
        let of_cuda = |device: &str, call: &str, count| of_process(&cuda::CALLS_TOTAL, 7, &[device, call], count);
        let given = [
            of_nccl("false", seen),
            of_nccl("true", recorded),
            of_cuda("0", "capture_end", recordings),
            // On whatever device.
            of_cuda("0", "graph_launch", launches / 2.0),
            of_cuda("unknown", "graph_launch", launches / 2.0),
            of_process(&cuda::CALLS_TOTAL, 8, &["0", "graph_launch"], 5.0),
        ];
        let found: Vec<f64> = points(&given).iter().filter_map(Point::number).collect();
        assert_eq!(found, Vec::from_iter(expect));
    }

    #[test]
    fn what_graphs_replay_is_reckoned_by_what_a_recording_holds_on_average() {
        check([10.0, 0.0, 0.0, 0.0], Some(1.0));
        check([10.0, 0.0, 3.0, 500.0], Some(1.0));
        check([10.0, 40.0, 2.0, 0.0], Some(1.0));
        // Twenty to a graph, launched twice.
        check([10.0, 40.0, 2.0, 2.0], Some(0.2));
        check([0.0, 40.0, 2.0, 2.0], Some(0.0));
    }

    #[test]
    fn nothing_is_said_where_nothing_was_done() {
        check([0.0, 0.0, 0.0, 0.0], None);
        check([0.0, 40.0, 2.0, 0.0], None);
        // Recorded before our time: it is not known how much a launch replays.
        check([0.0, 0.0, 0.0, 9.0], None);
    }
}
