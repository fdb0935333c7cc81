//! What the kernel counted of NCCL, as points.

use std::collections::BTreeMap;

use aya::{
    Ebpf,
    maps::{HashMap as KernelMap, PerCpuHashMap},
};
use plumbline_ebpf::nccl::{
    ArrivalKey, Arrivals, Comm, CommKey, Meeting, SLOTS, Skew, SkewKey, Traffic, TrafficKey, UNKNOWN,
};

use super::{
    super::{
        account::{AccountError, float, histogram, hit, of_process, open, parse},
        hooks::Counted,
        probes::Reading,
    },
    functions::FUNCTIONS,
};
use crate::{
    clock,
    series::{Kind, Point, nccl},
};

type CommKeyWords = [u64; size_of::<CommKey>() / 8];
type CommWords = [u64; size_of::<Comm>() / 8];
type TrafficKeyWords = [u64; size_of::<TrafficKey>() / 8];
type TrafficWords = [u64; size_of::<Traffic>() / 8];
type ArrivalKeyWords = [u64; size_of::<ArrivalKey>() / 8];
type ArrivalsWords = [u64; size_of::<Arrivals>() / 8];
type SkewKeyWords = [u64; size_of::<SkewKey>() / 8];
type SkewWords = [u64; size_of::<Skew>() / 8];

/// By hash, the ranks of this node, and how many collectives each has called.
type Ranks = BTreeMap<u64, Vec<(u32, u64)>>;

/// How many members each communicator had at the last reading.
pub type Members = BTreeMap<u64, u64>;

/// Reads the tables, and takes out what is of processes that have ended.
pub fn read(
    ebpf: &mut Ebpf,
    is_alive: impl Fn(u32, u64) -> bool,
    members: &mut Members,
    reading: &mut Reading,
) -> Result<(), AccountError> {
    let mut points = Vec::new();
    let mut ranks = Ranks::new();
    let mut comms: KernelMap<_, CommKeyWords, CommWords> = open(ebpf, "COMMS")?;
    let entries: Vec<_> = comms.iter().filter_map(Result::ok).collect();
    for (words, comm) in entries {
        let (key, comm) = (parse::<CommKey>(&words), parse::<Comm>(&comm));
        if !is_alive(key.pid, key.start_boot_ns) {
            let _ = comms.remove(&words);
            continue;
        }
        let labels = [name(comm.hash), number(comm.rank), number(comm.ranks)];
        points.push(of_process(&nccl::RANK_INFO, key.pid, &labels.each_ref().map(String::as_str), 1.0));
        if comm.error != 0 {
            let labels = [&*labels[0], &*labels[1], &*result(comm.error)];
            points.push(of_process(&nccl::ASYNC_ERROR, key.pid, &labels, 1.0));
        }
        if comm.hash != 0 && comm.rank != UNKNOWN {
            ranks.entry(comm.hash).or_default().push((comm.rank, comm.sequence));
        }
    }
    count_members(ebpf, &ranks, members)?;

    let mut traffic: PerCpuHashMap<_, TrafficKeyWords, TrafficWords> = open(ebpf, "TRAFFIC")?;
    let entries: Vec<_> = traffic.iter().filter_map(Result::ok).collect();
    for (words, cpus) in entries {
        let key = parse::<TrafficKey>(&words);
        let sums = cpus
            .iter()
            .map(|cpu| parse::<Traffic>(cpu))
            .fold([0_u64; 2], |sums, cpu| [sums[0] + cpu.calls, sums[1].wrapping_add(cpu.bytes)]);
        hit(&mut reading.hits, (key.pid, key.start_boot_ns), key.function, sums[0], Counted::Nccl);
        let function = usize::try_from(key.function).ok().and_then(|function| FUNCTIONS.get(function));
        if let Some(function) = function.filter(|function| function.is_traffic()) {
            let captured = if key.is_captured == 1 { "true" } else { "false" };
            let labels = [&*name(key.hash), &number(key.rank), function.name, captured];
            points.push(of_process(&nccl::CALLS_TOTAL, key.pid, &labels, float(sums[0])));
            points.push(of_process(&nccl::BYTES_TOTAL, key.pid, &labels, float(sums[1])));
        }
        if !is_alive(key.pid, key.start_boot_ns) {
            let _ = traffic.remove(&words);
        }
    }

    let mut skews: KernelMap<_, SkewKeyWords, SkewWords> = open(ebpf, "SKEWS")?;
    let entries: Vec<_> = skews.iter().filter_map(Result::ok).collect();
    for (key, words) in entries {
        let of = parse::<SkewKey>(&key);
        let Ok(skew) = <Skew as zerocopy::FromBytes>::read_from_bytes(zerocopy::IntoBytes::as_bytes(&words)) else {
            continue;
        };
        match ranks.get(&of.hash) {
            Some(ranks) => points.extend(skew_points(&of, &skew, ranks)),
            None => drop(skews.remove(&key)),
        }
    }
    points.extend(awaited(ebpf, &ranks)?);
    merge(&mut points);
    reading.points.extend(points);
    Ok(())
}

/// Who has not come to what others have come to, and for how long.
fn awaited(ebpf: &mut Ebpf, ranks: &Ranks) -> Result<Vec<Point>, AccountError> {
    let arrivals: KernelMap<_, ArrivalKeyWords, ArrivalsWords> = open(ebpf, "ARRIVALS")?;
    let entries: Vec<_> = arrivals.iter().filter_map(Result::ok).collect();
    let now_ns = clock::monotonic_ns();
    let mut since_ns: BTreeMap<(u64, u32), u64> = BTreeMap::new();
    for (key, words) in entries {
        let key = parse::<ArrivalKey>(&key);
        let Ok(arrivals) = <Arrivals as zerocopy::FromBytes>::read_from_bytes(zerocopy::IntoBytes::as_bytes(&words))
        else {
            continue;
        };
        for (rank, first_ns) in missing(key.sequence, &arrivals, ranks.get(&key.hash).map_or(&[], Vec::as_slice)) {
            let earliest_ns = since_ns.entry((key.hash, rank)).or_insert(first_ns);
            *earliest_ns = first_ns.min(*earliest_ns);
        }
    }
    let all = ranks
        .iter()
        .filter(|(_, ranks)| ranks.len() > 1)
        .flat_map(|(hash, ranks)| ranks.iter().map(|(rank, _)| (*hash, *rank)));
    let point = |(hash, rank)| {
        let waited_ns = since_ns.get(&(hash, rank)).map_or(0, |since_ns| now_ns.saturating_sub(*since_ns));
        Point::new(&nccl::AWAITED_SECONDS, &[&name(hash), &number(rank)], float(waited_ns) / 1e9)
    };
    Ok(all.map(point).collect())
}

/// Those of the ranks that have not called the collective of this number, and when the first one did; nobody where nobody did.
fn missing(sequence: u64, arrivals: &Arrivals, ranks: &[(u32, u64)]) -> Vec<(u32, u64)> {
    let Some(first_ns) = arrivals.stamps_ns.iter().copied().filter(|ns| *ns > 0).min() else { return Vec::new() };
    ranks.iter().filter(|(_, called)| *called <= sequence).map(|(rank, _)| (*rank, first_ns)).collect()
}

/// Members of this node that are gone without a word do not count. What one reading says may be of a moment in which members begin; what two
/// say holds.
fn count_members(ebpf: &mut Ebpf, ranks: &Ranks, before: &mut Members) -> Result<(), AccountError> {
    let mut members: KernelMap<_, u64, u64> = open(ebpf, "MEMBERS")?;
    let entries: Vec<_> = members.iter().filter_map(Result::ok).collect();
    before.retain(|hash, _| entries.iter().any(|(known, _)| known == hash));
    for (hash, count) in entries {
        let now = ranks.get(&hash).map_or(0, |ranks| ranks.len() as u64);
        let _ = match corrected(before.insert(hash, now), now, count) {
            None => continue,
            Some(0) => members.remove(&hash),
            Some(now) => members.insert(hash, now, 0),
        };
    }
    Ok(())
}

/// What the count ought to be, if it is another.
fn corrected(before: Option<u64>, now: u64, count: u64) -> Option<u64> {
    Some(now).filter(|_| before == Some(now) && now != count)
}

fn skew_points(of: &SkewKey, skew: &Skew, ranks: &[(u32, u64)]) -> Vec<Point> {
    let comm = &*name(of.hash);
    let nccl::Compared { skew_seconds, mismatched, last, lateness_seconds } =
        if of.of == Meeting::GraphLaunch as u64 { &nccl::GRAPH_LAUNCHES } else { &nccl::COLLECTIVES };
    let mut points = vec![
        Point::histogram(skew_seconds, &[comm], histogram(&skew.buckets, skew.sum_ns)),
        Point::new(mismatched, &[comm], float(skew.mismatched)),
    ];
    for &(rank, _) in ranks {
        let slot = usize::try_from(rank).unwrap_or_default() % SLOTS;
        let labels = [comm, &number(rank)];
        points.push(Point::new(last, &labels, float(skew.last[slot])));
        points.push(Point::new(lateness_seconds, &labels, float(skew.late_ns[slot]) / 1e9));
    }
    points
}

/// As NCCL prints it.
pub fn name(hash: u64) -> String {
    if hash == 0 { "unknown".to_owned() } else { format!("{hash:#x}") }
}

/// A `ncclResult_t` by its name in nccl.h, in snake case.
pub fn result(number: u32) -> String {
    const NAMES: [&str; 9] = [
        "success",
        "unhandled_cuda_error",
        "system_error",
        "internal_error",
        "invalid_argument",
        "invalid_usage",
        "remote_error",
        "in_progress",
        "timeout",
    ];
    let name = usize::try_from(number).ok().and_then(|number| NAMES.get(number));
    name.map_or_else(|| number.to_string(), |name| (*name).to_owned())
}

/// A rank, or how many there are.
pub fn number(number: u32) -> String {
    if number == UNKNOWN { "unknown".to_owned() } else { number.to_string() }
}

/// Two functions of one name are one, as are two communicators of which nothing is known.
fn merge(points: &mut Vec<Point>) {
    points.sort_by(|one, other| (one.series.name, &one.labels).cmp(&(other.series.name, &other.labels)));
    points.dedup_by(|one, kept| {
        let is_same = one.series == kept.series && one.labels == kept.labels;
        if let (true, Some(more), crate::series::Value::Number(sum)) = (is_same, one.number(), &mut kept.value)
            && one.series.kind != Kind::Gauge
        {
            *sum += more;
        }
        is_same
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_are_corrected_by_what_two_readings_say() {
        assert_eq!((corrected(None, 2, 3), corrected(Some(3), 2, 3)), (None, None));
        assert_eq!((corrected(Some(2), 2, 3), corrected(Some(2), 2, 1)), (Some(2), Some(2)));
        assert_eq!((corrected(Some(0), 0, 3), corrected(Some(3), 3, 3)), (Some(0), None));
    }

    #[test]
    fn who_has_not_come_is_missing_since_the_first_came() {
        let mut arrivals = Arrivals { stamps_ns: [0; SLOTS], signature: 0, interval_ns: 0 };
        assert_eq!(missing(4, &arrivals, &[(0, 4)]), []);
        (arrivals.stamps_ns[2], arrivals.stamps_ns[0]) = (70, 90);
        // The first has called those up to number 4, as has the last; the others are behind.
        assert_eq!(missing(4, &arrivals, &[(0, 5), (1, 4), (2, 9), (35, 0)]), [(1, 70), (35, 70)]);
        assert_eq!(missing(4, &arrivals, &[]), []);
    }
}
