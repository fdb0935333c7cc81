//! `plumbline doctor`: what this node can and cannot see, and what to change, on one screen.

use std::{path::Path, process::ExitCode};

use plumbline_policy::Need;

use super::{ConfigFile, failed, say};
use crate::{
    config::Config,
    core::chain,
    daemon::OWN_PROGRAM,
    engines::discover,
    gpu,
    infiniband::Ports,
    probes::{
        HookVerdict, Probes, State,
        kernel::{KernelFacts, words},
        ntp, ways,
    },
    verdict::enforce,
};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    config: ConfigFile,
}

pub(super) fn main(arguments: &Arguments) -> ExitCode {
    let (config, origin) = match Config::load(arguments.config.config.as_deref()) {
        Ok(loaded) => loaded,
        Err(error) => return failed(&error),
    };
    say(&format!("configuration   {origin}"));
    let facts = KernelFacts::read();
    say("\nKERNEL");
    for (name, fact) in facts.rows() {
        say(&format!("  {name:<18}{}", words(fact)));
    }
    say(&format!("  {:<18}{}", "wall clock", ntp::clock_sync()));

    say("\nHOOKS");
    let mut useful = false;
    let probes = Probes::load(&config.probes);
    match &probes {
        Ok(probes) => {
            useful |= !probes.is_useless();
            probes.verdicts.iter().for_each(hook);
            say("\nNOT SEEN  (docs/coverage.md tells of every way)");
            for way in ways::blind(&probes.verdicts) {
                say(&format!("  {}: {}", way.name, way.otherwise));
            }
        }
        Err(error) => say(&format!("  absent: {}", chain(error))),
    }

    say("\nENFORCE  (what policies may need of this kernel)");
    let verdicts = probes.as_ref().map(|probes| &probes.verdicts[..]).map_err(|error| chain(error));
    let kernel = enforce::with(verdicts.as_ref().map(|verdicts| *verdicts).map_err(String::as_str), probes.is_ok());
    for need in Need::ALL {
        match kernel.answer(need) {
            Ok(how) => say(&format!("  {:<14}{how}", need.as_str())),
            Err(why) => say(&format!("  {:<14}absent: {why}", need.as_str())),
        }
    }

    say("\nGPU");
    match config.gpu.enabled.then(|| gpu::look(&config.gpu, Path::new(OWN_PROGRAM), &config.state_dir)) {
        Some(Ok(view)) => {
            useful = true;
            super::gpu::summary(&view).iter().for_each(|line| say(&format!("  {line}")));
        }
        Some(Err(reason)) => say(&format!("  absent: {reason}")),
        None => say("  absent: switched off in the configuration"),
    }
    say("\nINFINIBAND, ROCE");
    match Ports::here().read() {
        Ok(points) => say(&format!("  {} numbers of the kernel's", points.len())),
        Err(reason) => say(&format!("  {reason}")),
    }
    say("\nENGINES");
    let found = discover::look(Path::new("/proc"), &config.kubelet.log_dir);
    for target in &config.engines.targets {
        useful = true;
        say(&format!("  {} at {} (configured)", target.name, target.access));
    }
    for candidate in &found.candidates {
        useful = true;
        let name = candidate.dialect.map(|dialect| candidate.name(dialect)).unwrap_or_default();
        say(&format!("  {name} at {} (pid {})", candidate.access, candidate.pid.unwrap_or_default()));
    }
    if config.engines.targets.is_empty() && found.candidates.is_empty() {
        say("  absent: none configured, and no process of a known engine listens");
    }
    if config.prices.is_none() {
        say("\nPRICE\n  absent: no `prices` in the configuration");
    }
    if useful { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// The rung that was taken with its cost and blind spots, and every rung that was refused with its reason.
fn hook(verdict: &HookVerdict) {
    let hook = verdict.hook;
    match verdict.state {
        State::Attached(rung) => {
            say(&format!("  {:<12} attached ({})  sees {}", hook.name, rung.name, hook.sees));
            say(&format!("  {:<12}   costs {}", "", rung.cost));
            say(&format!("  {:<12}   blind to {}", "", rung.blind));
        }
        State::Silent(rung) => say(&format!("  {:<12} SILENT ({})  not seen: {}", hook.name, rung.name, hook.sees)),
        State::NotNeeded => say(&format!("  {:<12} not needed  another hook sees {}", hook.name, hook.sees)),
        State::Unsupported => say(&format!("  {:<12} UNSUPPORTED  not seen: {}", hook.name, hook.sees)),
        State::Failed => say(&format!("  {:<12} FAILED  not seen: {}", hook.name, hook.sees)),
    }
    for refusal in &verdict.refused {
        say(&format!("  {:<12}   {} refused: {}", "", refusal.rung, refusal.reason));
    }
}
