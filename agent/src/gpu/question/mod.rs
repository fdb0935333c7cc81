//! What is asked of a GPU, and what number an answer is: one file per subject.
//!
//! A question is a getter of NVML or one of its field values (`nvmlDeviceGetFieldValues`). A new one is one row in the file
//! of its subject; `docs/gpu-series.md` has it from there. What a GPU does not answer is kept as a [`Refusal`] with the
//! reason, and is asked again once in a while; its series are absent.

mod activity;
mod asker;
mod clock;
#[cfg(test)]
mod docs;
mod ecc;
mod fabric;
mod field;
mod memory;
mod mig;
mod nvlink;
mod pcie;
mod power;
mod process;
mod temperature;
#[cfg(test)]
mod tests;
mod throttle;

use std::borrow::Cow;

use nvml_wrapper::error::NvmlError;

pub use self::asker::{Asker, End, Refusal};
use self::field::Field;
use crate::series::Series;

/// All questions, subject by subject.
static SUBJECTS: &[&[Question]] = &[
    activity::QUESTIONS,
    clock::QUESTIONS,
    memory::QUESTIONS,
    temperature::QUESTIONS,
    power::QUESTIONS,
    throttle::QUESTIONS,
    ecc::QUESTIONS,
    pcie::QUESTIONS,
    nvlink::QUESTIONS,
    fabric::QUESTIONS,
    mig::QUESTIONS,
    process::QUESTIONS,
];

/// How often a question is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Round {
    /// In every round: each second, and four times as often in an incident.
    Light,
    /// In every fifth second's round only.
    Full,
}

impl Round {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Light => "light",
            Self::Full => "full",
        }
    }
}

/// A number that lacks only the GPU's own labels.
#[derive(Debug, Clone, PartialEq)]
pub struct Measure {
    pub series: &'static Series,
    /// The values of the series' own labels.
    pub labels: Vec<Cow<'static, str>>,
    pub number: f64,
}

/// One row of the table.
struct Question {
    /// The call of `nvml.h`, or the name of the field there.
    call: &'static str,
    round: Round,
    /// Which GPUs answer.
    hardware: &'static str,
    ask: Ask,
}

enum Ask {
    Getter { tells: Tells, ask: fn(&mut Asker) -> Answer },
    Field(Field),
}

impl Question {
    /// Which series, and the values of their own labels that are fixed.
    fn tells(&self) -> Vec<(&'static Series, Vec<&'static str>)> {
        match &self.ask {
            Ask::Getter { tells, .. } => {
                let label = |label: &'static str| if label.is_empty() { Vec::new() } else { vec![label] };
                tells.iter().map(|&(series, fixed)| (series, label(fixed))).collect()
            }
            Ask::Field(field) => vec![(field.series, field.labels.to_vec())],
        }
    }
}

/// The series that a getter tells, and the first of their own labels where that is fixed.
type Tells = &'static [(&'static Series, &'static str)];

type Answer = Result<Vec<Measure>, NvmlError>;

const fn getter(
    call: &'static str,
    round: Round,
    hardware: &'static str,
    tells: Tells,
    ask: fn(&mut Asker) -> Answer,
) -> Question {
    Question { call, round, hardware, ask: Ask::Getter { tells, ask } }
}

const fn field(call: &'static str, round: Round, hardware: &'static str, field: Field) -> Question {
    Question { call, round, hardware, ask: Ask::Field(field) }
}

/// Answered by every GPU that the driver still supports.
const ALL: &str = "all";
const DATACENTER: &str = "data-centre GPUs";
const AMPERE: &str = "Ampere and newer";
const HOPPER: &str = "Hopper and newer";
const BLACKWELL: &str = "Blackwell and newer";
const BEFORE_BLACKWELL: &str = "GPUs with NVLink before Blackwell";
const NVLINK: &str = "GPUs with NVLink";
const ECC: &str = "GPUs with ECC";
const GRACE: &str = "Grace Hopper, Grace Blackwell";

fn questions() -> impl Iterator<Item = &'static Question> {
    SUBJECTS.iter().copied().flatten()
}

fn measure(series: &'static Series, number: f64) -> Measure {
    Measure { series, labels: Vec::new(), number }
}

fn labelled(series: &'static Series, label: &'static str, number: f64) -> Measure {
    Measure { series, labels: vec![Cow::Borrowed(label)], number }
}

/// An answer that is one number, brought to the base unit.
fn one(series: &'static Series, answer: Result<u32, NvmlError>, to_base_unit: fn(u32) -> f64) -> Answer {
    Ok(vec![measure(series, to_base_unit(known(answer?)?))])
}

fn one_labelled(
    series: &'static Series,
    label: &'static str,
    answer: Result<u32, NvmlError>,
    to_base_unit: fn(u32) -> f64,
) -> Answer {
    Ok(vec![labelled(series, label, to_base_unit(known(answer?)?))])
}

/// NVML says "I do not know" by all ones (`NVML_VALUE_NOT_AVAILABLE`).
fn known(number: u32) -> Result<u32, NvmlError> {
    if number == u32::MAX { Err(NvmlError::NoData) } else { Ok(number) }
}

/// The same for 64 bits.
fn known_wide(number: u64) -> Result<u64, NvmlError> {
    if number == u64::MAX { Err(NvmlError::NoData) } else { Ok(number) }
}

fn ratio(percent: u32) -> Result<f64, NvmlError> {
    if percent <= 100 { Ok(f64::from(percent) / 100.0) } else { Err(NvmlError::NoData) }
}

fn from_milli(number: u32) -> f64 {
    f64::from(number) / 1e3
}

fn from_mega(number: u32) -> f64 {
    f64::from(number) * 1e6
}

#[expect(clippy::cast_precision_loss, reason = "exact up to 2^53: 9 PB, 285 years at 1 kW")]
fn exact(number: u64) -> f64 {
    number as f64
}
