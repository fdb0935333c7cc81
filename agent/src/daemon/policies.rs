//! Policies from the configuration to what is in force on this kernel.

use plumbline_policy::{KernelProfile, LoadError, Mode, PolicySet, Unmet};

use super::DaemonError;
use crate::{config::Config, core::chain, http::policies::InForce};

/// A set that can be in force here.
#[derive(Debug)]
pub(super) struct Loaded {
    pub(super) policies: PolicySet,
    /// What each policy does, for the status.
    pub(super) in_force: Vec<InForce>,
}

/// The configured policies, or the built-in ones, as far as this kernel can do what they say.
pub(super) fn load(
    config: &Config,
    previous: Option<&PolicySet>,
    kernel: &KernelProfile,
) -> Result<Loaded, DaemonError> {
    let mut policies = match &config.policies {
        None => PolicySet::embedded(),
        Some(directory) => {
            PolicySet::reload(directory, previous).map_err(|error| DaemonError::Policies(explain(&error)))?
        }
    };
    let written: Vec<Mode> = policies.policies().iter().map(|policy| policy.mode()).collect();
    let lines = |unmet: &[Unmet]| unmet.iter().map(|one| format!("{one}\n")).collect::<String>();
    let degraded = policies.fit(kernel).map_err(|unmet| DaemonError::Policies(lines(&unmet)))?;
    for unmet in &degraded {
        tracing::warn!("{unmet}");
    }
    let in_force = policies.policies().iter().zip(written).map(|(policy, written)| {
        let why = degraded.iter().find(|unmet| unmet.policy == policy.name()).map(|unmet| unmet.why.clone());
        InForce {
            name: policy.name().to_owned(),
            mode: policy.mode().as_str().to_owned(),
            rules: policy.rules().len(),
            kernel_table_bytes: None,
            note: why.map(|why| format!("written as {}: {why}", written.as_str())),
        }
    });
    Ok(Loaded { in_force: in_force.collect(), policies })
}

/// The whole message of policies that cannot be used: file, line, caret, what to write instead.
pub fn explain(error: &LoadError) -> String {
    let mut text = String::new();
    let handler = miette::GraphicalReportHandler::new_themed(miette::GraphicalTheme::unicode_nocolor());
    match handler.render_report(&mut text, error) {
        Ok(()) => text,
        Err(_) => chain(error),
    }
}
