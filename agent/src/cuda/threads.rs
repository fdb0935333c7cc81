//! What threads counted of their own: launches, the commonest of calls.

use std::collections::BTreeMap;

use aya::{Ebpf, maps::HashMap as KernelMap};
use plumbline_ebpf::cuda::{KINDS, OTHER_DEVICE, Thread, UNKNOWN_DEVICE, count_of};

use super::{
    account::{AccountError, open},
    calls::Call,
    libraries::Libraries,
};

type ThreadWords = [u64; size_of::<Thread>() / 8];

/// A process by its number and its start, the device, and the row of the call.
pub type Key = (u32, u64, u32, u8);

/// Counts of threads that have ended, of processes that have not.
#[derive(Debug, Default)]
pub struct Ended(BTreeMap<Key, u64>);

/// What all threads of each process counted. Those that have ended are taken out of the kernel's table and kept here; those of a process that
/// has ended are told a last time.
pub fn read(ebpf: &mut Ebpf, libraries: &Libraries, ended: &mut Ended) -> Result<BTreeMap<Key, u64>, AccountError> {
    let mut map: KernelMap<_, u64, ThreadWords> = open(ebpf, "THREADS")?;
    let threads: Vec<u64> = map.keys().filter_map(Result::ok).collect();
    let mut sums = BTreeMap::new();
    for pid_tgid in threads {
        #[expect(clippy::cast_possible_truncation, reason = "two numbers of 32 bits")]
        let (pid, tid) = ((pid_tgid >> 32) as u32, pid_tgid as u32);
        // Asked before its counts are read: what has ended counts no more.
        let is_there = libraries.has_thread(pid, tid);
        let Ok(words) = map.get(&pid_tgid, 0) else { continue };
        let Ok(thread) = <Thread as zerocopy::FromBytes>::read_from_bytes(zerocopy::IntoBytes::as_bytes(&words)) else {
            continue;
        };
        if is_there {
            add(&mut sums, pid, &thread);
        } else {
            add(&mut ended.0, pid, &thread);
            let _ = map.remove(&pid_tgid);
        }
    }
    for (key, count) in &ended.0 {
        *sums.entry(*key).or_default() += count;
    }
    ended.0.retain(|(pid, start_boot_ns, ..), _| libraries.is_alive(*pid, *start_boot_ns));
    Ok(sums)
}

fn add(sums: &mut BTreeMap<Key, u64>, pid: u32, thread: &Thread) {
    for device in (0..OTHER_DEVICE).chain([UNKNOWN_DEVICE]) {
        for (kind, (row, _)) in
            (0..KINDS).filter_map(|kind| u8::try_from(kind).ok()).filter_map(|kind| Some((kind, Call::of_kind(kind)?)))
        {
            let count = thread.counts[count_of(device, kind)];
            if count > 0 {
                *sums.entry((pid, thread.start_boot_ns, device, row)).or_default() += count;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use plumbline_ebpf::cuda::{COUNTS, Launches};

    use super::*;

    #[test]
    fn what_threads_counted_adds_up_by_process_device_and_call() {
        let mut sums = BTreeMap::new();
        for (device, kind, count) in [(0, 0, 5), (UNKNOWN_DEVICE, 1, 7), (0, 0, 6)] {
            let mut counts = [0; COUNTS];
            counts[count_of(device, kind)] = count;
            let launches = Launches::default();
            add(&mut sums, 9, &Thread { task: 1, start_boot_ns: 90, device, is_capturing: 0, launches, counts });
        }
        let rows = [0, 1].map(|kind| Call::of_kind(kind).expect("a row").0);
        assert_eq!(sums, [((9, 90, 0, rows[0]), 11), ((9, 90, UNKNOWN_DEVICE, rows[1]), 7)].into());
    }
}
