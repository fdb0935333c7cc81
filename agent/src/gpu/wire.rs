//! What the GPU worker and the daemon say to each other: one JSON object a line, over a socket that both inherit.
//!
//! Both ends are the same program, so that there are no versions of this.

use std::{
    borrow::Cow,
    collections::HashMap,
    io::{self, BufRead, Read as _, Write},
    sync::LazyLock,
};

use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{DeserializeOwned, Error as _},
};

use super::{
    identity::Identity,
    question::{Measure, Refusal},
};
use crate::series::{Series, TABLE};

/// From the worker.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Frame {
    /// NVML is open: the first word.
    Open {
        driver: String,
        is_simulated: bool,
        count: u32,
    },
    Listed(Identity),
    /// The driver lists it, and it does not say who it is.
    Nameless {
        index: u32,
        reason: String,
    },
    /// Nobody is there to be asked: the only word.
    Absent {
        reason: String,
    },
    Reading(Reading),
    /// Whether the GPU's own events are told, and else why not.
    Events {
        index: u32,
        refused: Option<String>,
    },
    /// An event of the GPU's (`nvmlEventData_t`): its type, what it says, GPU instance and compute instance.
    Event {
        index: u32,
        boot_ns: u64,
        kind: u64,
        data: u64,
        instances: [Option<u32>; 2],
    },
    /// The driver says that the GPU has fallen off the bus. It is not asked again.
    Lost {
        index: u32,
        question: String,
    },
    /// The driver went away, or is another than when NVML was opened: the last word.
    DriverGone,
    Cost {
        cpu_seconds: f64,
        library_cpu_seconds: f64,
        resident_bytes: f64,
    },
}

/// What one GPU answered.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Reading {
    pub index: u32,
    /// When the first question was asked, nanoseconds of CLOCK_BOOTTIME.
    pub taken_boot_ns: u64,
    pub light: Answers,
    /// In a full round.
    pub full: Option<Answers>,
    /// What is not answered, when it changed.
    pub refusals: Option<Vec<Refusal>>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Answers {
    pub took_ns: u64,
    pub measures: Vec<Measure>,
}

/// To the worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Order {
    Ask(Rhythm),
}

/// How often a GPU is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rhythm {
    pub light_ms: u64,
    /// Rounded up to a light round.
    pub full_ms: u64,
}

/// A line that is longer is no line of ours: 8 MiB hold a hundred times what a GPU has to say.
const MOST_BYTES: u64 = 8 << 20;

pub fn write<T: Serialize>(to: &mut impl Write, what: &T) -> io::Result<()> {
    let mut line = serde_json::to_vec(what)?;
    line.push(b'\n');
    to.write_all(&line)
}

/// The next one; `None` at the end. What has come of it stays in `line` over an error, such as that there is no more yet.
pub fn read<T: DeserializeOwned>(from: &mut impl BufRead, line: &mut Vec<u8>) -> io::Result<Option<T>> {
    let left = MOST_BYTES.saturating_sub(u64::try_from(line.len()).unwrap_or(MOST_BYTES));
    from.by_ref().take(left).read_until(b'\n', line)?;
    if line.is_empty() {
        return Ok(None);
    }
    let what = serde_json::from_slice(line)?;
    line.clear();
    Ok(Some(what))
}

static BY_NAME: LazyLock<HashMap<&'static str, &'static Series>> =
    LazyLock::new(|| TABLE.iter().copied().flatten().map(|series| (series.name, *series)).collect());

impl Serialize for Measure {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        (self.series.name, &self.labels, self.number).serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Measure {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // Names have nothing that JSON would escape, so that they can be read in place.
        let (name, labels, number) = <(&str, Vec<Cow<'static, str>>, f64)>::deserialize(deserializer)?;
        let series = BY_NAME.get(name).ok_or_else(|| D::Error::custom(format!("no series is called {name}")))?;
        Ok(Self { series, labels, number })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::series::gpu::throttle::THROTTLE_SECONDS_TOTAL;

    fn frame() -> Frame {
        let measures = vec![Measure {
            series: &THROTTLE_SECONDS_TOTAL,
            labels: vec!["sw_power_cap".into()],
            number: 18.977_064_576,
        }];
        Frame::Reading(Reading {
            index: 1,
            taken_boot_ns: 23_049_388_859_541,
            light: Answers { took_ns: 24_393_378, measures },
            full: None,
            refusals: None,
        })
    }

    #[test]
    fn what_is_written_is_read() {
        let frames = [frame(), Frame::DriverGone, Frame::Absent { reason: "no \"driver\"\n".to_owned() }];
        let mut bytes = Vec::new();
        frames.iter().for_each(|frame| write(&mut bytes, frame).unwrap());
        let (mut from, mut line) = (&bytes[..], Vec::new());
        let read: Vec<Frame> = std::iter::from_fn(|| read(&mut from, &mut line).unwrap()).collect();
        assert_eq!(read, frames);
    }

    #[test]
    fn a_line_that_comes_in_pieces_is_read_once_it_is_whole() {
        let mut bytes = Vec::new();
        write(&mut bytes, &frame()).unwrap();
        let (ours, mut theirs) = std::os::unix::net::UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        let (mut from, mut line) = (io::BufReader::new(ours), Vec::new());
        for piece in bytes.chunks(7) {
            let waiting = read::<Frame>(&mut from, &mut line).unwrap_err();
            assert_eq!(waiting.kind(), io::ErrorKind::WouldBlock);
            theirs.write_all(piece).unwrap();
        }
        assert_eq!(read(&mut from, &mut line).unwrap(), Some(frame()));
        drop(theirs);
        assert_eq!(read::<Frame>(&mut from, &mut line).unwrap(), None);
    }

    #[test]
    fn a_broken_line_is_an_error() {
        for broken in ["{}\n", "\n", "{\"lost\":\n", "{\"reading\":{}}\n", "[\"plumbline_nothing\"]\n"] {
            assert!(read::<Frame>(&mut broken.as_bytes(), &mut Vec::new()).is_err(), "{broken}");
        }
        let mut bytes = Vec::new();
        write(&mut bytes, &frame()).unwrap();
        let text = String::from_utf8(bytes).unwrap().replace("throttle_seconds", "nothing_seconds");
        let error = read::<Frame>(&mut text.as_bytes(), &mut Vec::new()).unwrap_err();
        assert!(error.to_string().contains("no series is called plumbline_gpu_nothing_seconds_total"), "{error}");
    }
}
