//! `plumbline engines`: the engines that the daemon reads; and what a page of an engine's means.

use std::{
    collections::BTreeMap,
    error::Error,
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
};

use plumbline_exposition::{Format, Line, Lines, Sample, Text};
use serde_json::Value as Json;

use super::{daemon::DaemonArguments, failed, say};
use crate::{
    engines::{
        access::{Access, MetricsUrl, Written},
        config::Choice,
        dialect::DIALECTS,
        scrape::{self, Limits},
        translate::{Absent, Explained, Row, explain, source_words},
    },
    series::{Value, engine},
};

#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(super) struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    list: ListArguments,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Show what each canonical series is on an engine's page, its value, or why it is absent
    Explain(ExplainArguments),
}

#[derive(Debug, clap::Args)]
struct ListArguments {
    #[command(flatten)]
    daemon: DaemonArguments,
}

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  plumbline engines explain http://127.0.0.1:8000\n  plumbline engines explain http://127.0.0.1:8000 --pid 4711\n  plumbline engines explain page.txt"
)]
struct ExplainArguments {
    /// The engine's page: http://HOST[:PORT][/PATH], https as well, or a file
    #[arg(value_name = "URL|FILE")]
    page: String,
    /// Ask in the network namespace of this process, as of a pod's
    #[arg(long, value_name = "PID")]
    pid: Option<u32>,
    /// Ask over this unix socket
    #[arg(long, value_name = "PATH")]
    unix_socket: Option<PathBuf>,
    /// Certificates, one of which must have signed that of an https engine
    #[arg(long, value_name = "FILE")]
    ca_file: Option<PathBuf>,
    /// Send what this file holds as a bearer token
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// Read it as this dialect [default: the one that recognises it]
    #[arg(long)]
    dialect: Option<String>,
    /// What to call the model where the page does not say
    #[arg(long, default_value = "")]
    model: String,
    /// Name each metric of the page that is of no use
    #[arg(long)]
    all: bool,
}

pub(super) fn main(arguments: &Arguments) -> ExitCode {
    let outcome = match &arguments.command {
        None => list(&arguments.list),
        Some(Command::Explain(arguments)) => explain_page(arguments),
    };
    outcome.unwrap_or_else(|error| failed(error.as_ref()))
}

type Outcome = Result<ExitCode, Box<dyn Error>>;

/// What the daemon's page says of one engine.
#[derive(Debug, Default)]
struct Engine {
    up: bool,
    /// Dialect, version, URL.
    info: Option<[String; 3]>,
    age_seconds: Option<f64>,
    scrape_seconds: Option<f64>,
    unusable_lines: f64,
    /// Running, waiting, share of the KV cache.
    models: BTreeMap<String, [Option<f64>; 3]>,
}

fn list(arguments: &ListArguments) -> Outcome {
    let page = arguments.daemon.ask("/metrics")?;
    let status: Json = serde_json::from_str(&arguments.daemon.ask("/api/v1/status")?)?;
    let engines = engines(&page);
    if engines.is_empty() {
        say("no engine is configured or found");
    }
    for (name, engine) in &engines {
        show(name, engine, &status);
    }
    Ok(if engines.values().all(|engine| engine.up) { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn engines(page: &str) -> BTreeMap<String, Engine> {
    let mut engines: BTreeMap<String, Engine> = BTreeMap::new();
    for line in Lines::new(page, Format::Text) {
        let Ok(Line::Sample(sample)) = line else { continue };
        let label = |name: &str| sample.labels.get(name).map(|text: Text<'_>| text.unescape().into_owned());
        let Some(name) = label("engine").filter(|_| sample.name.raw().starts_with("plumbline_engine_")) else {
            continue;
        };
        let known = engines.entry(name).or_default();
        take(known, &sample, &|name| label(name).unwrap_or_default());
    }
    engines
}

fn take(known: &mut Engine, sample: &Sample<'_>, label: &dyn Fn(&str) -> String) {
    let of_model = [&engine::REQUESTS_RUNNING, &engine::REQUESTS_WAITING, &engine::KV_CACHE_USAGE_RATIO];
    let (name, value) = (sample.name.raw(), sample.value);
    if name == engine::UP.name {
        known.up = value > 0.5;
    } else if name == engine::INFO.name {
        known.info = Some(["dialect", "version", "url"].map(label));
    } else if name == engine::SAMPLE_AGE_SECONDS.name {
        known.age_seconds = Some(value);
    } else if name == engine::SCRAPE_DURATION_SECONDS.name {
        known.scrape_seconds = Some(value);
    } else if name == engine::UNUSABLE_LINES_TOTAL.name {
        known.unusable_lines = value;
    } else if let Some(at) = of_model.iter().position(|series| series.name == name) {
        known.models.entry(label("model")).or_default()[at] = Some(value);
    }
}

fn show(name: &str, engine: &Engine, status: &Json) {
    let state = if engine.up { "up" } else { "DOWN" };
    match &engine.info {
        Some([dialect, version, url]) => {
            let version = if version.is_empty() { String::new() } else { format!(" ({version})") };
            say(&format!("{name:<20} {state:<5} {dialect}{version}, {url}"));
        }
        None => say(&format!("{name:<20} {state}")),
    }
    let source = format!("engine:{name}");
    if let Some(why) = status["absent"].as_array().into_iter().flatten().find(|absent| absent[0] == source.as_str()) {
        say(&format!("{:<26} {}", "", why[1].as_str().unwrap_or_default()));
    }
    if let (Some(age), Some(scrape)) = (engine.age_seconds, engine.scrape_seconds) {
        let unusable = match engine.unusable_lines {
            0.0 => String::new(),
            lines => format!(", {lines} lines so far were unusable"),
        };
        say(&format!(
            "{:<26} read {age:.1} s before the newest scrape ended, which took {:.0} ms{unusable}",
            "",
            scrape * 1e3
        ));
    }
    for (model, [running, waiting, kv_cache]) in &engine.models {
        let number = |number: &Option<f64>, words: &str| number.map(|number| format!("{number} {words}"));
        let cache = kv_cache.map(|share| format!("KV cache {:.0} % full", share * 1e2));
        let all = [number(running, "running"), number(waiting, "waiting"), cache];
        let model = if model.is_empty() { "(no model named)".to_owned() } else { model.escape_debug().to_string() };
        say(&format!("{:<26} {model}: {}", "", all.into_iter().flatten().collect::<Vec<_>>().join(", ")));
    }
}

fn explain_page(arguments: &ExplainArguments) -> Outcome {
    let dialect = match &arguments.dialect {
        Some(name) => Choice::try_from(name.clone())?.only(),
        None => None,
    };
    let (body, format) = page(arguments)?;
    let explained = explain(&body, format, dialect, &arguments.model).ok_or_else(|| {
        let known: Vec<&str> = DIALECTS.iter().map(|dialect| dialect.name).collect();
        format!("no dialect recognises the page; known are {}", known.join(", "))
    })?;
    print(&explained, arguments.all);
    Ok(ExitCode::SUCCESS)
}

fn page(arguments: &ExplainArguments) -> Result<(Vec<u8>, Format), Box<dyn Error>> {
    let from = &arguments.page;
    if !from.contains("://") {
        let path = PathBuf::from(from);
        return Ok((read(&path)?, Format::Text));
    }
    let written = Written {
        unix_socket: arguments.unix_socket.as_deref().map(std::path::absolute).transpose()?,
        network_namespace: arguments.pid.map(|pid| format!("/proc/{pid}/ns/net").into()),
        ca_file: arguments.ca_file.clone(),
        token_file: arguments.token_file.clone(),
        ..Written::default()
    };
    let access = Access::new(MetricsUrl::try_from(from.clone())?, written)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let page = runtime.block_on(scrape::fetch(&access, Limits::default())).map_err(|error| error.to_line())?;
    Ok((page.body, page.format))
}

fn read(path: &Path) -> Result<Vec<u8>, Box<dyn Error>> {
    fs::read(path).map_err(|error| format!("cannot read {}: {error}", path.display()).into())
}

fn print(explained: &Explained, all: bool) {
    let Explained { dialect, prefix, version, rows, unmapped, unusable_lines, first_unusable } = explained;
    let prefix = if prefix.is_empty() { "no prefix".to_owned() } else { format!("prefix {prefix}") };
    let version = if version.is_empty() { "version not told".to_owned() } else { format!("version {version}") };
    say(&format!("dialect   {} ({prefix}, {version})", dialect.name));
    say(&format!("          {}\n", dialect.about));
    for row in rows {
        if let Ok((source, told)) = &row.told {
            for (model, own, value) in told {
                let model = if model.is_empty() { String::new() } else { format!(" [{}]", model.escape_debug()) };
                say(&format!("{}{model} = {}", row.name(&own.escape_debug().to_string()), words(value)));
            }
            say(&format!("    {source}; {}", row.flags()));
        }
    }
    say("\nABSENT");
    for row in rows {
        if let Err(why) = row.told {
            say(&format!("{}: {}", row.name(row.fixed()), absent(row, why)));
        }
    }
    if let Some(first) = first_unusable {
        say(&format!("\nUNUSABLE  {unusable_lines} lines, the first: {first}"));
    }
    let hint = if all { "" } else { "; --all names them" };
    say(&format!("\nOF NO USE  {} metrics of the page{hint}", unmapped.len()));
    if all {
        unmapped.iter().for_each(|name| say(&format!("    {}", name.escape_debug())));
    }
}

fn words(value: &Value) -> String {
    match value {
        Value::Number(number) => number.to_string(),
        Value::Histogram(histogram) => {
            format!("{} observations, {} in all, {} buckets", histogram.count, histogram.sum, histogram.buckets.len())
        }
    }
}

fn absent(row: &Row, why: Absent) -> String {
    match (why, row.field) {
        (Absent::NotOnPage, Some(field)) => {
            let wanted: Vec<String> = field.sources.iter().map(|source| source_words(source, "")).collect();
            format!("the page has not {}", wanted.join(", nor "))
        }
        (Absent::Impossible, Some(_)) => "what the page says of it cannot be true".to_owned(),
        _ => "this engine tells nothing of the kind".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_daemons_page_is_read_back_engine_by_engine() {
        let page = "plumbline_engine_up{engine=\"a\"} 1\nplumbline_engine_up{engine=\"b\"} 0\n\
                    plumbline_engine_info{engine=\"a\",dialect=\"vllm\",version=\"V0\",url=\"http://h\"} 1\n\
                    plumbline_engine_requests_running{engine=\"a\",model=\"m\"} 4\n\
                    plumbline_engine_kv_cache_usage_ratio{engine=\"a\",model=\"m\"} 0.5\n\
                    plumbline_gpu_up{engine=\"c\"} 1\nnonsense\n";
        let engines = engines(page);
        let names: Vec<(&str, bool)> = engines.iter().map(|(name, engine)| (name.as_str(), engine.up)).collect();
        assert_eq!(names, [("a", true), ("b", false)]);
        assert_eq!(engines["a"].models["m"], [Some(4.0), None, Some(0.5)]);
        assert_eq!(engines["a"].info.as_ref().unwrap()[1], "V0");
    }
}
