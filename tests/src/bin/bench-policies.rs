//! What a thousand policies cost beside one: reading and checking them, and asking them about an event.
//! `cargo xtask bench policies` builds and runs it.

use std::{
    fs,
    hint::black_box,
    path::PathBuf,
    process::ExitCode,
    time::{Duration, Instant},
};

use plumbline_policy::{Access, Accesses, Facts, File, Object, PolicySet, Protocol, Subject, check};
use plumbline_tests::bench_deny;

const ROUNDS: usize = 9;
const EVENTS: u32 = 20_000;
const MANY: usize = 1000;

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench-policies: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Outcome<()> {
    let dir = PathBuf::from(std::env::args().nth(1).ok_or("which directory?")?);
    let _ = fs::remove_dir_all(&dir);
    fs::create_dir_all(&dir)?;
    let documents: Vec<(String, String)> = (0..MANY).map(|team| (format!("p{team:04}.yaml"), policy(team))).collect();
    for (name, text) in &documents {
        fs::write(dir.join(name), text)?;
    }
    let set = |many: usize| {
        let documents = documents.iter().take(many).map(|(name, text)| (name.as_str(), text.as_str()));
        PolicySet::from_documents(documents).map_err(|mistakes| format!("{mistakes:?}"))
    };
    let mut checks = Vec::new();
    let mut reads = Vec::new();
    for _ in 0..ROUNDS {
        let began = Instant::now();
        let report = check(&dir, None)?;
        checks.push(began.elapsed());
        if !report.is_ok() {
            return Err(report.to_string().into());
        }
        let began = Instant::now();
        black_box(set(MANY)?);
        reads.push(began.elapsed());
    }
    let mut reloads = Vec::new();
    let mut before = PolicySet::load(&dir)?;
    for round in 0..ROUNDS {
        // One policy changes.
        fs::write(dir.join("p0500.yaml"), policy(500).replace("opened", &format!("opened {round}")))?;
        let began = Instant::now();
        before = PolicySet::reload(&dir, Some(&before))?;
        reloads.push(began.elapsed());
    }
    say(&format!("checking {MANY} policies with {MANY} tests from their directory"), &mut checks);
    say(&format!("reading {MANY} policies that lie in memory"), &mut reads);
    say(&format!("reloading {MANY} policies of which one has changed"), &mut reloads);

    let (one, many) = (set(1)?, set(MANY)?);
    let exe = Some(&b"/usr/bin/cat"[..]);
    let subject = Subject { pid: 7, uid: Some(1000), comm: b"cat", exe, ..Subject::default() };
    let file = |path| Object::File(File { accesses: Accesses::of([Access::Open]), path, ..File::default() });
    let connect = |address: [u8; 4]| Object::Connect {
        protocol: Protocol::Tcp,
        address: address.into(),
        port: 443,
        names: &[],
        source: None,
    };
    let events = [
        ("an open that one policy matches", file(b"/models/team-0/model.safetensors")),
        ("an open that none speaks of", file(b"/usr/lib/os-release")),
        ("a connection that none matches", connect([192, 168, 0, 7])),
    ];
    for (what, object) in events {
        let facts = Facts { subject, object };
        let (mut ones, mut manys, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            let with_one = asked(&one, &facts);
            let with_many = asked(&many, &facts);
            ratios.push(with_many / with_one);
            ones.push(with_one);
            manys.push(with_many);
        }
        let [one, many, ratio] = [ones, manys, ratios].map(spread);
        println!(
            "{what}: {:.0} ns with 1 policy, {:.0} ns with {MANY}; ratio {:.2} ({:.2}-{:.2})",
            one.0, many.0, ratio.0, ratio.1, ratio.2
        );
    }
    fs::remove_dir_all(&dir)?;
    if let Err(why) = bench_deny::run(&dir, MANY) {
        println!("what denying costs in the kernel: not measured, because {why}");
    }
    let _ = fs::remove_dir_all(&dir);
    Ok(())
}

/// Nanoseconds for one event.
fn asked(set: &PolicySet, facts: &Facts<'_>) -> f64 {
    let began = Instant::now();
    for _ in 0..EVENTS {
        black_box(set.decide(black_box(facts)));
    }
    #[expect(clippy::cast_precision_loss, reason = "milliseconds")]
    let total_ns = began.elapsed().as_nanos() as f64;
    total_ns / f64::from(EVENTS)
}

/// Median, least, greatest.
fn spread(mut values: Vec<f64>) -> (f64, f64, f64) {
    values.sort_by(f64::total_cmp);
    (values[values.len() / 2], values[0], values[values.len() - 1])
}

fn say(what: &str, times: &mut [Duration]) {
    times.sort();
    let (median, least, greatest) = (times[times.len() / 2], times[0], times[times.len() - 1]);
    println!("{what}: {:.1} ms ({:.1}-{:.1})", ms(median), ms(least), ms(greatest));
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

fn policy(team: usize) -> String {
    format!(
        "apiVersion: plumbline/v1\nkind: Policy\nmetadata: {{name: p{team:04}}}\nspec:\n  rules:\n    - name: files\n      severity: high\n      \
         effect: alert\n      message: '{{comm}} opened {{path}}'\n      match: {{file: {{watch: [/models/team-{team}], access: [open, read]}}}}\n      \
         except:\n        - {{exe: /opt/team-{team}/bin/server, unit: team-{team}.service}}\n        - {{exe: '/opt/team-{team}/**/python3*', \
         cgroup: /kubepods.slice/**}}\n    - name: egress\n      severity: medium\n      effect: alert\n      message: '{{comm}} connects to \
         {{address}}'\n      match: {{connect: {{notTo: [10.{}.0.0/16, 192.168.0.0/16], port: [443, 8443]}}}}\ntests:\n  - {{name: t, event: {{file: \
         {{path: /models/team-{team}/a}}, process: {{exe: /bin/cat}}}}, expect: alert, rule: files}}\n",
        team % 256
    )
}
