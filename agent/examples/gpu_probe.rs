//! Prints what a machine's GPUs answer and refuse, as JSON lines: `gpu_probe [SECONDS]`.

use std::{
    error::Error,
    io::{self, Write as _},
    time::{Duration, Instant},
};

use plumbline::{
    config::GpuConfig,
    gpu::nvml::{self, Session},
    series::Point,
};
use serde_json::{Value, json};

fn main() -> Result<(), Box<dyn Error>> {
    let seconds: u64 = std::env::args().nth(1).map_or(Ok(1), |seconds| seconds.parse())?;
    let library = nvml::library(&GpuConfig::default());
    let opening = Instant::now();
    let mut session = match Session::open(&library) {
        Ok(session) => session,
        Err(error) => {
            say(&json!({"absent": error.to_string(), "source": error.source().map(ToString::to_string)}))?;
            return Ok(());
        }
    };
    let maps = std::fs::read_to_string("/proc/self/maps")?;
    let mut mapped: Vec<&str> = maps
        .lines()
        .filter_map(|line| line.find('/').map(|at| &line[at..]))
        .filter(|path| path.contains("nv"))
        .collect();
    mapped.dedup();
    say(&json!({
        "driver": session.driver,
        "library": library,
        "mapped": mapped,
        "simulated": session.is_simulated,
        "open_ms": opening.elapsed().as_secs_f64() * 1e3,
    }))?;

    let began = Instant::now();
    loop {
        let round = Instant::now();
        let readings = session.read()?;
        let read_ms = round.elapsed().as_secs_f64() * 1e3;
        let at_s = began.elapsed().as_secs_f64();
        say(&json!({"at_s": at_s, "gpus": readings.len(), "read_ms": read_ms}))?;
        for (identity, reading) in readings {
            for point in identity.points(true) {
                say(&describe(at_s, &point))?;
            }
            for measure in &reading.measures {
                say(&describe(at_s, &identity.entity.point(measure)))?;
            }
            for refusal in &reading.refusals {
                say(&json!({
                    "at_s": at_s,
                    "gpu": identity.entity.uuid,
                    "unsupported": refusal.question,
                    "error": refusal.error.to_string(),
                    "nvml_error": format!("{:?}", refusal.error),
                }))?;
            }
        }
        if began.elapsed() >= Duration::from_secs(seconds) {
            return Ok(());
        }
        std::thread::sleep(Duration::from_secs(1).saturating_sub(round.elapsed()));
    }
}

fn describe(at_s: f64, point: &Point) -> Value {
    let labels: Value = point
        .series
        .labels
        .iter()
        .zip(&point.labels)
        .map(|(name, value)| ((*name).to_owned(), value.clone()))
        .collect();
    json!({"at_s": at_s, "series": point.series.name, "labels": labels, "value": point.number()})
}

fn say(line: &Value) -> io::Result<()> {
    writeln!(io::stdout().lock(), "{line}")
}
