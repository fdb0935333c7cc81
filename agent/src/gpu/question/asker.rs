//! Who asks one GPU, and remembers what must be remembered between two rounds.

use std::collections::{BTreeSet, HashMap};

use nvml_wrapper::{Device, Nvml, error::NvmlError, gpm::GpmSample};

use super::{Ask, Measure, Question, Round, field, mig::Instances, questions};
use crate::gpu::{driver::FieldNumbers, raw};

/// Full rounds until what was refused for good is asked again: a MIG change or a permission may have come meanwhile.
const ASK_AGAIN_AFTER: u32 = 60;

/// One GPU, and what was seen of it.
pub struct Asker {
    pub nvml: &'static Nvml,
    pub device: Device<'static>,
    pub numbers: FieldNumbers,
    /// What GPM counted at the round before.
    pub gpm: Option<GpmSample<'static>>,
    /// Whether MIG divides it, and into what.
    pub is_divided: bool,
    pub instances: Instances,
    /// Links that answer, once somebody has looked.
    pub nvlinks: u32,
    pub c2c_links: u32,
    /// Up to when processes' samples were read: microseconds of the driver's clock.
    pub processes_seen_us: u64,
    /// Counters that wrap in the GPU, by the name of their field.
    pub wrapping: HashMap<&'static str, field::Wrapping>,
    /// Questions that are not answered, with the reason and the full rounds until they are asked again.
    refused: HashMap<&'static str, (String, u32)>,
}

/// A question without an answer.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Refusal {
    /// The NVML call, or the name of the field.
    pub question: String,
    pub reason: String,
    /// Which GPUs answer it.
    pub hardware: String,
    /// What is absent for want of an answer.
    pub series: Vec<String>,
}

/// Everything that one GPU answered in one round.
#[derive(Debug, Default)]
pub struct Reading {
    pub measures: Vec<Measure>,
    /// The driver says that the GPU has fallen off the bus, or that NVML must be opened anew.
    pub end: Option<(End, &'static str)>,
}

/// Why there is no use in asking on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// This GPU is lost.
    Lost,
    /// The driver is gone or another than when NVML was opened.
    DriverGone,
}

impl End {
    /// `None` for an error of one question.
    fn of(error: &NvmlError) -> Option<Self> {
        match error {
            NvmlError::GpuLost => Some(Self::Lost),
            NvmlError::Uninitialized | NvmlError::DriverNotLoaded | NvmlError::LibRmVersionMismatch => {
                Some(Self::DriverGone)
            }
            _ => None,
        }
    }
}

impl Asker {
    pub fn new(nvml: &'static Nvml, device: Device<'static>, numbers: FieldNumbers) -> Self {
        Self {
            nvml,
            device,
            numbers,
            gpm: None,
            is_divided: false,
            instances: Instances::new(),
            nvlinks: 0,
            c2c_links: 0,
            processes_seen_us: 0,
            wrapping: HashMap::new(),
            refused: HashMap::new(),
        }
    }

    /// Asks every question of the round once.
    pub fn ask(&mut self, round: Round) -> Reading {
        let mut reading = Reading::default();
        if round == Round::Full {
            for (_, again) in self.refused.values_mut() {
                *again = again.saturating_sub(1);
            }
        }
        let due: Vec<&Question> =
            questions().filter(|question| question.round == round && self.is_due(question)).collect();
        for question in &due {
            if let Ask::Getter { ask, .. } = question.ask {
                let answer = ask(self);
                self.note(&mut reading, question.call, answer);
                if reading.end.is_some() {
                    return reading;
                }
            }
        }
        for (call, answer) in self.ask_fields(&due) {
            self.note(&mut reading, call, answer);
        }
        reading
    }

    /// What is not answered, in the order of its names.
    pub fn refusals(&self) -> Vec<Refusal> {
        let refusal = |question: &Question| {
            let (reason, _) = self.refused.get(question.call)?;
            let series: BTreeSet<&str> = question.tells().iter().map(|(series, _)| series.name).collect();
            Some(Refusal {
                question: question.call.to_owned(),
                reason: reason.clone(),
                hardware: question.hardware.to_owned(),
                series: series.into_iter().map(str::to_owned).collect(),
            })
        };
        let mut refusals: Vec<Refusal> = questions().filter_map(refusal).collect();
        refusals.sort_by(|a, b| a.question.cmp(&b.question));
        refusals
    }

    fn is_due(&self, question: &Question) -> bool {
        self.refused.get(question.call).is_none_or(|(_, again)| *again == 0)
    }

    fn note(&mut self, reading: &mut Reading, call: &'static str, answer: Result<Vec<Measure>, NvmlError>) {
        match answer {
            Ok(measures) => {
                reading.measures.extend(measures);
                self.refused.remove(call);
            }
            Err(error) => {
                reading.end = reading.end.or_else(|| End::of(&error).map(|end| (end, call)));
                let is_for_good = matches!(
                    error,
                    NvmlError::NotSupported | NvmlError::FailedToLoadSymbol(_) | NvmlError::NoPermission
                );
                let again = if is_for_good { ASK_AGAIN_AFTER } else { 0 };
                self.refused.insert(call, (reason(&error), again));
            }
        }
    }

    /// All fields of the round in one call each hundred.
    fn ask_fields(&mut self, due: &[&Question]) -> Vec<(&'static str, Result<Vec<Measure>, NvmlError>)> {
        let fields: Vec<_> = due
            .iter()
            .filter_map(|question| match &question.ask {
                Ask::Field(field) => Some((question.call, field)),
                Ask::Getter { .. } => None,
            })
            .collect();
        let wanted: Vec<(usize, raw::FieldRequest)> = fields
            .iter()
            .enumerate()
            .flat_map(|(index, (_, field))| {
                let id = self.numbers.number(field.id);
                field.scopes(self.nvlinks, self.c2c_links).map(move |scope| (index, raw::FieldRequest { id, scope }))
            })
            .collect();
        let mut answers: Vec<Option<Result<Vec<Measure>, NvmlError>>> = fields.iter().map(|_| None).collect();
        for chunk in wanted.chunks(raw::FIELDS_PER_CALL) {
            let requests: Vec<raw::FieldRequest> = chunk.iter().map(|(_, request)| *request).collect();
            let values = match raw::field_values(&self.device, &requests) {
                Ok(values) => values,
                // Nothing of the chunk was answered.
                Err(error) => {
                    for (index, _) in chunk {
                        answers[*index].get_or_insert_with(|| Err(field::again(&error)));
                    }
                    continue;
                }
            };
            for ((index, request), value) in chunk.iter().zip(values) {
                let (call, field) = fields[*index];
                let number = value.and_then(|value| {
                    let wrapping = self.wrapping.entry(call);
                    field.number(&value, wrapping).ok_or(NvmlError::NoData)
                });
                let slot = &mut answers[*index];
                match (number.map(|number| field.measure(request.scope, number)), slot.as_mut()) {
                    // One link that answers is an answer.
                    (Ok(measure), Some(Ok(measures))) => measures.push(measure),
                    (Ok(measure), _) => *slot = Some(Ok(vec![measure])),
                    (Err(_), Some(_)) => {}
                    (Err(error), None) => *slot = Some(Err(error)),
                }
            }
        }
        let asked = fields.iter().zip(answers);
        asked.filter_map(|((call, _), answer)| Some((*call, answer?))).collect()
    }
}

/// In one line: what the dynamic linker says of a missing symbol names the file, which is said elsewhere.
fn reason(error: &NvmlError) -> String {
    match error {
        NvmlError::FailedToLoadSymbol(_) => "this driver's library has no such function".to_owned(),
        NvmlError::NoPermission => "the driver refuses it to this user (NVML_ERROR_NO_PERMISSION)".to_owned(),
        NvmlError::NotSupported => "this GPU does not support it".to_owned(),
        NvmlError::NoData => "the driver gave no number that makes sense".to_owned(),
        other => other.to_string(),
    }
}
