//! NVML's field values: a number, its unit and its scope.
//!
//! Ids are those of `nvml.h` 12; [`FieldNumbers`](crate::gpu::driver::FieldNumbers) knows what another driver calls them.

use std::{borrow::Cow, collections::hash_map::Entry};

use nvml_wrapper::error::NvmlError;

use super::{Measure, exact};
use crate::{gpu::raw::FieldAnswer, series::Series};

/// One field, and how its value becomes a number of a series.
#[derive(Debug)]
pub struct Field {
    pub id: u32,
    pub scope: Scope,
    pub series: &'static Series,
    /// The values of the series' own labels, without the link's.
    pub labels: &'static [&'static str],
    pub unit: FieldUnit,
}

/// What of the GPU is meant (`scopeId`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// The GPU, or this part of it.
    Of(u32),
    /// All NVLinks together.
    AllNvlinks,
    /// Each NVLink by itself: the number is the last label.
    EachNvlink,
    EachC2c,
}

/// `scopeId` of all links together, where `nvml.h` says that it may be asked.
const ALL_LINKS: u32 = u32::MAX;

/// What the driver counts in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FieldUnit {
    /// As it is.
    Count,
    /// 64 bits of nanoseconds. Anything narrower may have lost its upper half, and is refused.
    Nanoseconds,
    Milliwatts,
    /// A sensor that does not exist reads 0.
    Celsius,
    /// A difference of temperatures, which may be negative.
    CelsiusMargin,
    Kibibytes,
    MegabytesPerSecond,
    /// Bytes in a counter that begins anew when its 32 bits are full.
    WrappingBytes,
    /// 0 or 1.
    Flag,
}

impl Field {
    pub const fn of_gpu(id: u32, series: &'static Series, labels: &'static [&'static str], unit: FieldUnit) -> Self {
        Self { id, scope: Scope::Of(0), series, labels, unit }
    }

    pub const fn with_scope(self, scope: Scope) -> Self {
        Self { scope, ..self }
    }

    /// What is to be asked about.
    pub fn scopes(&self, nvlinks: u32, c2c_links: u32) -> std::ops::Range<u64> {
        let only = |scope: u32| u64::from(scope)..u64::from(scope) + 1;
        match self.scope {
            Scope::Of(scope) => only(scope),
            Scope::AllNvlinks => only(ALL_LINKS),
            Scope::EachNvlink => 0..u64::from(nvlinks),
            Scope::EachC2c => 0..u64::from(c2c_links),
        }
    }

    /// In the base unit; `None` when the driver gave something that cannot be this field's value.
    pub fn number(&self, value: &FieldAnswer, wrapping: Entry<'_, &'static str, Wrapping>) -> Option<f64> {
        if value.is_all_ones() {
            return None;
        }
        let count = |factor: f64| Some(value.unsigned().map(exact)? * factor);
        match self.unit {
            FieldUnit::Count => count(1.0),
            FieldUnit::Nanoseconds => value.is_wide().then(|| count(1e-9))?,
            FieldUnit::Milliwatts => count(1e-3),
            FieldUnit::Celsius => value.float().filter(|celsius| *celsius > 0.0),
            FieldUnit::CelsiusMargin => value.float(),
            FieldUnit::Kibibytes => count(1024.0),
            FieldUnit::MegabytesPerSecond => count(1e6),
            FieldUnit::Flag => value.unsigned().filter(|flag| *flag <= 1).map(exact),
            FieldUnit::WrappingBytes => {
                let now = value.unsigned()?;
                Some(exact(if value.is_wide() { now } else { wrapping.or_default().advance(now) }))
            }
        }
    }

    pub fn measure(&self, scope: u64, number: f64) -> Measure {
        let fixed = self.labels.iter().map(|&label| Cow::Borrowed(label));
        let link = matches!(self.scope, Scope::EachNvlink | Scope::EachC2c).then(|| Cow::Owned(scope.to_string()));
        Measure { series: self.series, labels: fixed.chain(link).collect(), number }
    }
}

/// A counter of 32 bits that goes on where the GPU's begins anew.
#[derive(Debug, Clone, Copy, Default)]
pub struct Wrapping {
    last: u64,
    turns: u64,
}

impl Wrapping {
    pub fn advance(&mut self, now: u64) -> u64 {
        if now < self.last {
            self.turns += 1;
        }
        self.last = now;
        (self.turns << 32) + now
    }
}

/// The same error for another question: NVML's errors cannot be cloned.
pub fn again(error: &NvmlError) -> NvmlError {
    match error {
        NvmlError::GpuLost => NvmlError::GpuLost,
        NvmlError::Uninitialized => NvmlError::Uninitialized,
        NvmlError::DriverNotLoaded => NvmlError::DriverNotLoaded,
        NvmlError::LibRmVersionMismatch => NvmlError::LibRmVersionMismatch,
        NvmlError::NotSupported => NvmlError::NotSupported,
        NvmlError::NoPermission => NvmlError::NoPermission,
        NvmlError::FailedToLoadSymbol(symbol) => NvmlError::FailedToLoadSymbol(symbol.clone()),
        _ => NvmlError::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_counter_that_wraps_goes_on() {
        let mut wrapping = Wrapping::default();
        let counted = [5, u64::from(u32::MAX), 3, 4, 2].map(|now| wrapping.advance(now));
        assert_eq!(counted, [5, 0xFFFF_FFFF, 0x1_0000_0003, 0x1_0000_0004, 0x2_0000_0002]);
    }
}
