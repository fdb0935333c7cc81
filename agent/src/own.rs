//! What the daemon itself costs, from `/proc/self` (proc_pid_stat(5), proc_pid_statm(5)).

use std::fs;

/// CPU time and memory of this process.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct OwnCost {
    pub cpu_seconds: f64,
    pub resident_bytes: f64,
}

pub fn own_cost() -> Option<OwnCost> {
    let stat = fs::read_to_string("/proc/self/stat").ok()?;
    let statm = fs::read_to_string("/proc/self/statm").ok()?;
    let ticks = u32::try_from(rustix::param::clock_ticks_per_second()).ok()?;
    let page = u32::try_from(rustix::param::page_size()).ok()?;
    parse(&stat, &statm, f64::from(ticks), f64::from(page))
}

/// Fields 14 utime and 15 stime in clock ticks; the second field of statm in pages.
fn parse(stat: &str, statm: &str, ticks_per_second: f64, page_bytes: f64) -> Option<OwnCost> {
    let fields = stat.get(stat.rfind(')')? + 1..)?;
    let field = |number: usize| fields.split_ascii_whitespace().nth(number - 3)?.parse::<f64>().ok();
    let resident_pages: f64 = statm.split_ascii_whitespace().nth(1)?.parse().ok()?;
    Some(OwnCost {
        cpu_seconds: (field(14)? + field(15)?) / ticks_per_second,
        resident_bytes: resident_pages * page_bytes,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn user_and_kernel_time_add_up() {
        let stat = "7 (a) b) S 1 7 7 0 -1 0 1 2 3 4 150 50 0 0 20 0 1 0 9 1 1";
        let cost = parse(stat, "1000 25 3 1 0 1 0", 100.0, 4096.0);
        assert_eq!(cost, Some(OwnCost { cpu_seconds: 2.0, resident_bytes: 102_400.0 }));
    }
}
