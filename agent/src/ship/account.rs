//! How one exporter fares, as series and as log lines: a receiver that stays down is told of once.

use crate::{
    core::{SharedStore, chain, lock},
    series::{Point, agent},
};

#[derive(Debug)]
pub(super) struct Account {
    exporter: String,
    store: SharedStore,
    failing: bool,
}

impl Account {
    pub(super) fn new(exporter: &str, store: &SharedStore) -> Self {
        // Zero is known here: nothing was sent yet.
        for series in [&agent::EXPORTED, &agent::EXPORT_ERRORS] {
            lock(store).add(series, &[exporter], 0.0);
        }
        Self { exporter: exporter.to_owned(), store: store.clone(), failing: false }
    }

    /// The receiver took so many.
    pub(super) fn succeeded(&mut self, count: usize) {
        if std::mem::take(&mut self.failing) {
            tracing::info!(exporter = self.exporter.as_str(), "the receiver takes what is sent again");
        }
        let count = f64::from(u32::try_from(count).unwrap_or(u32::MAX));
        lock(&self.store).add(&agent::EXPORTED, &[&self.exporter], count);
    }

    /// The receiver took the request, but not all that was in it.
    pub(super) fn rejected(&self, count: i64, says: &str) {
        if count > 0 {
            lock(&self.store).add(&agent::EXPORT_ERRORS, &[&self.exporter], 1.0);
            tracing::error!(
                exporter = self.exporter.as_str(),
                count,
                says,
                "the receiver took the rest and rejected some for good"
            );
        }
    }

    pub(super) fn failed(&mut self, error: &dyn std::error::Error) {
        lock(&self.store).add(&agent::EXPORT_ERRORS, &[&self.exporter], 1.0);
        if !std::mem::replace(&mut self.failing, true) {
            tracing::error!(exporter = self.exporter.as_str(), error = %chain(error), "cannot send; the next attempts are counted");
        }
    }

    /// What waits in the log. While that is not known, sending fails too, and the errors tell.
    pub(super) fn lag(&self, records: Option<u64>) {
        let Some(records) = records else { return };
        #[expect(clippy::cast_precision_loss, reason = "exact up to 2^53")]
        let lag = Point::new(&agent::EXPORT_LAG, &[&self.exporter], records as f64);
        lock(&self.store).set(lag);
    }
}
