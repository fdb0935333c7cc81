//! Whether somebody set the wall clock: its distance from CLOCK_BOOTTIME, which never steps, is watched.

use crate::event::ClockStep;

/// Slewing changes the distance by at most 500 ppm; what is more than this between two looks was a step.
const STEP_NS: i128 = 500_000_000;

#[derive(Debug, Default)]
pub struct WallClock {
    /// Wall clock minus CLOCK_BOOTTIME at the last look.
    distance_ns: Option<i128>,
}

impl WallClock {
    /// A step since the last look.
    pub fn look(&mut self, boot_ns: u64, unix_ns: u64) -> Option<ClockStep> {
        let distance = i128::from(unix_ns) - i128::from(boot_ns);
        let by = distance - self.distance_ns.replace(distance)?;
        (by.abs() >= STEP_NS).then(|| ClockStep { by_ns: i64::try_from(by).unwrap_or(i64::MAX) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_hour_forward_and_back_are_steps_and_slewing_is_none() {
        let mut clock = WallClock::default();
        let hour = 3_600_000_000_000;
        let mut look = |boot_s: u64, unix_ns: u64| clock.look(boot_s * 1_000_000_000, unix_ns).map(|step| step.by_ns);
        let start = 1_790_000_000_000_000_000;
        assert_eq!(look(0, start), None);
        assert_eq!(look(1, start + 1_000_400_000), None);
        assert_eq!(look(2, start + 2_000_400_000 + hour), Some(3_600_000_000_000));
        assert_eq!(look(3, start + 3_000_400_000), Some(-3_600_000_000_000));
        assert_eq!(look(4, start + 4_000_400_000), None);
    }
}
