//! `plumbline trace`: what one process asks of CUDA's driver and NCCL, all of it, for a while.

use std::{
    collections::{BTreeMap, BTreeSet},
    error::Error,
    path::PathBuf,
    process::ExitCode,
    thread,
    time::{Duration, Instant},
};

use plumbline_exposition::{Format, Line, Lines, Sample};
use serde_json::json;

use super::{activity::Activity, daemon::DaemonArguments, failed, say, span::Span};
use crate::{
    cuda::part_of,
    series::{cuda, nccl},
};

/// The daemon's samples are as far apart.
const EVERY: Duration = Duration::from_secs(5);

const LEAST: Duration = Duration::from_secs(10);
const MOST: Duration = Duration::from_secs(3600);

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Launches of single kernels are counted meanwhile, of this process alone, as far as `cuda.budget_percent` allows. The daemon ends that by \
                  itself. It wants the token of `incident.token_file`, which this command reads from the same configuration."
)]
pub(super) struct Arguments {
    /// The process, by its number on the host
    #[arg(long)]
    pid: u32,
    /// For so long, from 10s to 1h
    #[arg(long = "for", value_name = "SPAN", default_value = "30s")]
    span: Span,
    /// A file to which a tool in the process writes what its GPU does, as this command sees it: NCCL Inspector's, or lines of one's own
    #[arg(long = "activity", value_name = "FILE")]
    activities: Vec<PathBuf>,
    #[command(flatten)]
    daemon: DaemonArguments,
}

pub(super) fn main(arguments: &Arguments) -> ExitCode {
    match trace(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => failed(error.as_ref()),
    }
}

fn trace(Arguments { pid, span: Span(span), activities, daemon }: &Arguments) -> Result<(), Box<dyn Error>> {
    if !(LEAST..=MOST).contains(span) {
        return Err(format!("{} s is no time to trace for; expected 10s to 1h", span.as_secs()).into());
    }
    let opened = activities
        .iter()
        .map(|path| Activity::follow(path).map_err(|error| format!("{} cannot be followed: {error}", path.display())));
    let mut activities: Vec<Activity> = opened.collect::<Result<_, _>>()?;
    let asked = daemon.daemon()?;
    daemon.post("/api/v1/probes/cuda", &json!({ "trace_pid": pid, "for_seconds": span.as_secs() }))?;
    let (begin, mut before) = (Instant::now(), None::<Counts>);
    let mut has_called = false;
    loop {
        let mut now = Counts::of(&asked.ask("/metrics")?, *pid);
        let rates = before.as_ref().map(|before| now.since(before)).unwrap_or_default();
        let mut devices = before.map(|before| before.devices).unwrap_or_default();
        now.devices.difference(&devices).for_each(|device| say(device));
        now.devices.append(&mut devices);
        if !rates.is_empty() {
            has_called = true;
            say(&format!("{} s\n{}", begin.elapsed().as_secs(), lines(&rates)));
        }
        for activity in &mut activities {
            if let Some(news) = activity.news()? {
                has_called = true;
                say(&news);
            }
        }
        before = Some(now);
        let rest = span.saturating_sub(begin.elapsed());
        if rest.is_zero() {
            break;
        }
        thread::sleep(EVERY.min(rest));
    }
    if has_called {
        return Ok(());
    }
    Err(format!("nothing that process {pid} called was counted: is it its number on the host, and has it loaded CUDA?")
        .into())
}

/// What a page says of one process, and for how long each part of the calls was looked at.
#[derive(Debug, Default)]
struct Counts {
    /// By part and what it is.
    counts: BTreeMap<(&'static str, String), f64>,
    watched_seconds: BTreeMap<String, f64>,
    /// Which GPU each device is.
    devices: BTreeSet<String>,
}

/// What was called how often in a second, or how much was moved.
type Rates = Vec<(String, f64)>;

impl Counts {
    fn of(page: &str, pid: u32) -> Self {
        let mut counts = Self::default();
        let samples = Lines::new(page, Format::Text).filter_map(Result::ok);
        for line in samples {
            if let Line::Sample(sample) = line {
                counts.add(&sample, pid);
            }
        }
        counts
    }

    fn add(&mut self, sample: &Sample<'_>, pid: u32) {
        let label = |name: &str| sample.labels.get(name).map(|value| value.unescape().into_owned()).unwrap_or_default();
        let name = sample.name.unescape();
        if name == cuda::WATCHED_SECONDS_TOTAL.name {
            self.watched_seconds.insert(label("part"), sample.value);
            return;
        }
        if label("pid") != pid.to_string() {
            return;
        }
        if name == cuda::DEVICE_INFO.name {
            let instance = label("GPU_I_ID");
            let instance = if instance.is_empty() { instance } else { format!(", instance {instance}") };
            self.devices.insert(format!("device {} is {}{instance}", label("device"), label("UUID")));
            return;
        }
        let what = if name == cuda::CALLS_TOTAL.name {
            let call = label("call");
            (part_of(&call), format!("{call}, device {}", label("device")))
        } else if name == cuda::COPIED_BYTES_TOTAL.name {
            ("steps", format!("bytes {}, device {}", label("direction"), label("device")))
        } else if name == nccl::CALLS_TOTAL.name || name == nccl::BYTES_TOTAL.name {
            let bytes = if name == nccl::BYTES_TOTAL.name { "bytes " } else { "" };
            let captured = if label("captured") == "true" { ", captured" } else { "" };
            ("rest", format!("{bytes}{}, rank {} of {}{captured}", label("function"), label("rank"), label("comm")))
        } else {
            return;
        };
        *self.counts.entry(what).or_default() += sample.value;
    }

    /// Nothing while there is no newer sample.
    fn since(&self, before: &Self) -> Rates {
        let of = |seconds: &BTreeMap<String, f64>, part: &str| seconds.get(part).copied().unwrap_or_default();
        let rates = self.counts.iter().filter_map(|((part, what), count)| {
            let seconds = of(&self.watched_seconds, part) - of(&before.watched_seconds, part);
            let more = count - before.counts.get(&(*part, what.clone())).copied().unwrap_or_default();
            (seconds > 0.0 && more > 0.0).then(|| (what.clone(), more / seconds))
        });
        let mut rates: Rates = rates.collect();
        rates.sort_by(|(_, one), (_, other)| other.total_cmp(one));
        rates
    }
}

fn lines(rates: &[(String, f64)]) -> String {
    rates.iter().map(|(what, rate)| format!("{rate:>16.1} /s  {what}")).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    const BEFORE: &str = r#"
plumbline_cuda_watched_seconds_total{part="launches"} 10
plumbline_cuda_watched_seconds_total{part="steps"} 100
plumbline_cuda_watched_seconds_total{part="rest"} 100
plumbline_cuda_calls_total{pid="7",process="x",device="0",call="launch"} 1000
plumbline_cuda_calls_total{pid="7",process="x",device="0",call="graph_launch"} 50
"#;

    const AFTER: &str = r#"
plumbline_cuda_watched_seconds_total{part="launches"} 11
plumbline_cuda_watched_seconds_total{part="steps"} 105
plumbline_cuda_watched_seconds_total{part="rest"} 105
plumbline_cuda_calls_total{pid="7",process="x",device="0",call="launch"} 21000
plumbline_cuda_calls_total{pid="7",process="x",device="0",call="graph_launch"} 1050
plumbline_cuda_calls_total{pid="7",process="x",device="0",call="init"} 0
plumbline_cuda_calls_total{pid="8",process="x",device="0",call="launch"} 999
plumbline_cuda_copied_bytes_total{pid="7",device="0",direction="peer"} 500
plumbline_cuda_device_info{pid="7",device="0",UUID="GPU-01",GPU_I_ID="2",source="driver"} 1
plumbline_nccl_calls_total{pid="7",comm="0xc",rank="3",function="all_reduce",captured="true"} 10
"#;

    #[test]
    fn rates_are_those_of_the_time_in_which_the_part_was_looked_at() {
        let [before, after] = [BEFORE, AFTER].map(|page| Counts::of(page, 7));
        // Launches are thinned: they were looked at for one second of the five.
        let expect = [
            "         20000.0 /s  launch, device 0",
            "           200.0 /s  graph_launch, device 0",
            "           100.0 /s  bytes peer, device 0",
            "             2.0 /s  all_reduce, rank 3 of 0xc, captured",
        ];
        assert_eq!(lines(&after.since(&before)), expect.join("\n"));
        assert_eq!(after.devices, ["device 0 is GPU-01, instance 2".to_owned()].into());
        assert!(after.since(&after).is_empty());
        assert!(Counts::of(AFTER, 9).since(&Counts::of(BEFORE, 9)).is_empty());
    }
}
