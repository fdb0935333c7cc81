//! Amounts that only grow, and how much they grew in the last while.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

/// A counter of somebody else, which starts again when its owner does.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Counter {
    last: Option<f64>,
}

impl Counter {
    /// How much was counted since the reading before. A smaller number is a restart: all of it is new. The first
    /// reading counts nothing, because what it holds may lie before our time.
    pub(super) fn advance(&mut self, reading: f64) -> f64 {
        match self.last.replace(reading) {
            None => 0.0,
            Some(last) if reading < last => reading,
            Some(last) => reading - last,
        }
    }
}

/// An amount of our own, with marks that say how much it was when.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Cumulative {
    total: f64,
    /// `(boot_ns, total then)`, ascending.
    marks: VecDeque<(u64, f64)>,
}

impl Cumulative {
    pub(super) fn add(&mut self, amount: f64) {
        self.total += amount;
    }

    /// Remembers the amount of now, and forgets what no question about the last `window_ns` can need.
    pub(super) fn mark(&mut self, boot_ns: u64, window_ns: u64) {
        self.marks.push_back((boot_ns, self.total));
        let from = boot_ns.saturating_sub(window_ns);
        while self.marks.get(1).is_some_and(|(at, _)| *at <= from) {
            self.marks.pop_front();
        }
    }

    /// The whole, or what came since the last mark at or before `window_ns` ago.
    pub(super) fn within(&self, boot_ns: u64, window_ns: Option<u64>) -> f64 {
        let Some(window_ns) = window_ns else { return self.total };
        let from = boot_ns.saturating_sub(window_ns);
        let before = self.marks.iter().rev().find(|(at, _)| *at <= from);
        self.total - before.map_or(0.0, |(_, total)| *total)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_counter_counts_from_its_first_reading_and_over_restarts() {
        let mut counter = Counter::default();
        assert_eq!([500.0, 510.0, 510.0, 7.0, 9.0].map(|reading| counter.advance(reading)), [0.0, 10.0, 0.0, 7.0, 2.0]);
    }

    #[test]
    fn a_window_reaches_back_to_the_mark_before_it() {
        let mut amount = Cumulative::default();
        for second in 0..=20 {
            amount.mark(second, 10);
            amount.add(1.0);
        }
        assert_eq!(amount.within(20, Some(10)), 11.0);
        assert_eq!(amount.within(20, Some(3)), 4.0);
        assert_eq!(amount.within(20, None), 21.0);
        assert_eq!(amount.marks.len(), 11, "older marks are forgotten");
    }

    #[test]
    fn an_amount_younger_than_the_window_counts_whole() {
        let mut amount = Cumulative::default();
        amount.add(5.0);
        amount.mark(100, 50);
        assert_eq!(amount.within(120, Some(50)), 5.0);
    }

    proptest! {
        #[test]
        fn a_window_is_never_negative_and_never_more_than_all(
            steps in prop::collection::vec((0..20_u64, 0..1000_u32), 1..50),
            window in 1..50_u64,
        ) {
            let mut amount = Cumulative::default();
            let mut now = 0;
            for (pause, add) in steps {
                now += pause;
                amount.add(f64::from(add));
                amount.mark(now, window);
                let within = amount.within(now, Some(window));
                prop_assert!(within >= 0.0 && within <= amount.within(now, None));
            }
        }
    }
}
