//! `plumbline test DIR`: the policies' own tests one by one, and silence on what is known to be good.

use std::{error::Error, path::PathBuf, process::ExitCode};

use plumbline_audit::Reader;
use plumbline_policy::{PolicySet, TestOutcome};
use serde_json::Value;

use crate::{
    cli::{failed, say},
    review::{line::line, occurrence},
};

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  plumbline test policies/
  plumbline test policies/ --silent-on /var/lib/plumbline/log
A baseline is an audit log of a time in which nothing was wrong: no rule that alerts, denies or kills in the mode its
policy is in may match any of its records. The exit code is 0 when every test passed and nothing was said of the baseline, else 1.")]
pub(in crate::cli) struct Arguments {
    /// The directory that holds the policies
    directory: PathBuf,
    /// The directory of an audit log on whose records the policies must keep silent; can be given more than once
    #[arg(long, value_name = "LOG")]
    silent_on: Vec<PathBuf>,
    /// No more matches on baselines are shown than this
    #[arg(long, value_name = "N", default_value_t = 20)]
    limit: usize,
}

pub(in crate::cli) fn main(arguments: &Arguments) -> ExitCode {
    let report = match plumbline_policy::check(&arguments.directory, None) {
        Ok(report) => report,
        Err(error) => return failed(&error),
    };
    if !report.invalid.is_empty() {
        say(report.to_string().trim_end());
        return ExitCode::FAILURE;
    }
    for TestOutcome { policy, test, objection } in &report.tests {
        match objection {
            None => say(&format!("ok      {policy}: {test}")),
            Some(why) => say(&format!("FAILED  {policy}: {test}\n        {why}")),
        }
    }
    for rule in &report.untested {
        say(&format!("note    no test makes rule {rule} match"));
    }
    let broke = match silence(arguments) {
        Ok(broke) => broke,
        Err(error) => return failed(error.as_ref()),
    };
    let failed = report.failed().count();
    say(&format!("{} passed, {failed} failed, 0 skipped", report.tests.len() - failed));
    if failed == 0 && broke == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// How often the policies spoke of the baselines.
fn silence(arguments: &Arguments) -> Result<usize, Box<dyn Error>> {
    if arguments.silent_on.is_empty() {
        return Ok(0);
    }
    let policies = PolicySet::load(&arguments.directory)?;
    let (mut broke, mut asked) = (0, 0);
    for log in &arguments.silent_on {
        for entry in Reader::from_seq(log, 0)? {
            let entry = entry?;
            let Ok(record) = serde_json::from_slice::<Value>(&entry.bytes) else { continue };
            let Some(event) = occurrence::of_record(&record) else { continue };
            asked += 1;
            let verdict = event.lend(|facts| policies.decide(facts));
            let told = verdict.matched().iter().find(|one| one.acts() > plumbline_policy::Effect::Audit);
            if let Some(one) = told {
                broke += 1;
                if broke <= arguments.limit {
                    say(&format!(
                        "FAILED  {}/{} matches {}\n        {}",
                        one.policy,
                        one.rule,
                        line(&entry.bytes),
                        one.message
                    ));
                }
            }
        }
    }
    say(&format!("baseline: {asked} events, {broke} of them not silent"));
    Ok(broke)
}
