//! What a thousand policies that deny cost in the kernel beside one: memory, the time of a reload, the time of a decision.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use plumbline::{
    event::FileKey,
    probes::{hooks::HOOKS, memory::map_bytes},
};

use crate::bench::Bench;

const ROUNDS: usize = 9;
const QUESTIONS: usize = 20_000;

/// Prints what it finds; `Err` where this machine takes no programs.
pub fn run(scratch: &Path, many: usize) -> Result<(), String> {
    let keep = ["file_open", "udp_connect", "udp_send"];
    let off: Vec<(&str, &str)> =
        HOOKS.iter().filter(|hook| !keep.contains(&hook.name)).map(|hook| (hook.name, "off")).collect();
    let mut bench = Bench::start(&off, 1 << 20, None)?;
    let directory = |team: usize| directory(scratch, team);
    let policies = |count: usize, round: usize| policies(scratch, count, round);
    policies(many, 0)?;
    bench.enforce_all(&policies(1, 0)?)?;
    let with_one = map_bytes();
    let (mut ones, mut manys, mut reloads) = (Vec::new(), Vec::new(), Vec::new());
    let mut with_many = 0;
    for round in 1..=ROUNDS {
        bench.enforce_all(&policies(1, round)?)?;
        ones.push(decision_ns(&mut bench, &directory(0))?);
        bench.enforce_all(&policies(many, round)?)?;
        with_many = map_bytes();
        manys.push(decision_ns(&mut bench, &directory(0))?);
        // One of them changes.
        reloads.push(bench.enforce_all(&policies(many, round + ROUNDS)?)?);
    }
    let per_policy = with_many.saturating_sub(with_one) / many as u64;
    println!(
        "kernel memory of {many} policies that deny: {per_policy} bytes each, beside {} KiB that are always there",
        with_one / 1024
    );
    let ms = |time: Duration| time.as_secs_f64() * 1e3;
    for (at, what) in ["watching the directories", "filling the tables"].into_iter().enumerate() {
        let mut times: Vec<Duration> = reloads.iter().map(|times| times[at]).collect();
        times.sort();
        println!(
            "{what} of {many} policies that deny, of which one has changed: {:.1} ms ({:.1}-{:.1})",
            ms(times[ROUNDS / 2]),
            ms(times[0]),
            ms(times[ROUNDS - 1])
        );
    }
    let mut ratios: Vec<f64> = ones.iter().zip(&manys).map(|(one, many)| many / one).collect();
    for values in [&mut ones, &mut manys, &mut ratios] {
        values.sort_by(f64::total_cmp);
    }
    println!(
        "the kernel's decision on an open: {:.0} ns with 1 policy, {:.0} ns with {many}; ratio {:.2} ({:.2}-{:.2})",
        ones[ROUNDS / 2],
        manys[ROUNDS / 2],
        ratios[ROUNDS / 2],
        ratios[0],
        ratios[ROUNDS - 1]
    );
    Ok(())
}

/// By the kernel's own clock (`BPF_ENABLE_STATS`), of an open in this directory by nobody in particular.
fn decision_ns(bench: &mut Bench, directory: &Path) -> Result<f64, String> {
    let FileKey { dev, ino, .. } = bench.key_of(directory).ok_or("the directory is not watched")?;
    let mut facts = [0; 12];
    (facts[4], facts[6], facts[7]) = (1000, u64::from(dev), ino);
    if bench.probes().ask_kernel(facts)?.is_none() {
        return Err("what is measured is not denied".to_owned());
    }
    let _counting = aya::sys::enable_stats(aya::sys::Stats::RunTime).map_err(|error| error.to_string())?;
    let (time_before, runs_before) = bench.probes().asked().ok_or("the program is not loaded")?;
    for _ in 0..QUESTIONS {
        bench.probes().ask_kernel(facts)?;
    }
    let (time, runs) = bench.probes().asked().ok_or("the program is not loaded")?;
    #[expect(clippy::cast_precision_loss, reason = "milliseconds, and thousands")]
    Ok((time - time_before).as_nanos() as f64 / (runs - runs_before) as f64)
}

/// Whom none of the policies denies anything.
pub const EXCUSED_UID: u32 = 4242;

/// The directory of a team.
pub fn directory(scratch: &Path, team: usize) -> PathBuf {
    scratch.join(format!("team-{team}"))
}

/// Policies of so many teams, whose directories are there. The first is another in each round.
pub fn policies(scratch: &Path, count: usize, round: usize) -> Result<Vec<(String, String)>, String> {
    let one = |team: usize| {
        let directory = directory(scratch, team);
        fs::create_dir_all(&directory).map_err(|error| error.to_string())?;
        Ok((format!("p{team:04}.yaml"), policy(team, &directory, if team == 0 { round } else { 0 })))
    };
    (0..count).map(one).collect()
}

/// As a team would write it: its weights are its server's.
fn policy(team: usize, directory: &Path, round: usize) -> String {
    format!(
        "apiVersion: plumbline/v1\nkind: Policy\nmetadata: {{name: p{team:04}, description: round {round}}}\nspec:\n  mode: enforce\n  rules:\n    - \
         {{name: files, severity: high, effect: deny, message: '{{path}}', match: {{file: {{watch: [{}]}}}}, except: [{{exe: \
         /opt/team-{team}/bin/server, unit: team-{team}.service}}, {{exe: '/opt/team-{team}/**/python3*', cgroup: /kubepods.slice/**}}, {{uid: {EXCUSED_UID}}}]}}\n",
        directory.display()
    )
}
