//! The ledger against hand calculations, resets, missing readings and changing prices.

use proptest::prelude::*;

use super::*;
use crate::cost::LedgerFile;
use crate::series::{Kind, Series, Unit};

/// Stand-ins for the GPU rows, which the ledger knows by name and labels.
static INFO: Series = gpu_row(GPU_INFO, Kind::Gauge, &["UUID", "name", "simulated"]);
static ENERGY: Series = gpu_row(GPU_ENERGY, Kind::Counter, &["UUID"]);

const fn gpu_row(name: &'static str, kind: Kind, labels: &'static [&'static str]) -> Series {
    Series { name, kind, unit: Unit::None, help: "-", source: "-", otel: "-", labels }
}

const EUR_GPU: &str = "{currency: EUR, gpu_per_hour: [{gpu: '*H100*', price: 3.6}], node_per_hour: 0.36}";

fn ledger(prices: &str) -> Ledger {
    Ledger::new(Some(serde_yaml::from_str(prices).expect("a good price book")))
}

fn gpus(second: u64, gpus: &[(&str, &str, f64)]) -> Sample {
    let points = gpus.iter().flat_map(|(gpu, name, joules)| {
        [Point::new(&INFO, &[gpu, name, "false"], 1.0), Point::new(&ENERGY, &[gpu], *joules)]
    });
    Sample { source: "gpu".into(), taken_boot_ns: second * SECOND_NS, points: Ok(points.collect()) }
}

fn no_gpu(second: u64) -> Sample {
    Sample { source: "gpu".into(), taken_boot_ns: second * SECOND_NS, points: Err("no driver".into()) }
}

/// `(engine, prompt tokens, generated tokens)`; no prompt tokens where the engine does not tell.
fn engine(second: u64, name: &str, prompt: Option<f64>, generated: f64) -> Sample {
    let mut points = vec![Point::new(&engine::GENERATION_TOKENS_TOTAL, &[name, "m"], generated)];
    points.extend(prompt.map(|prompt| Point::new(&engine::PROMPT_TOKENS_TOTAL, &[name, "m"], prompt)));
    Sample { source: format!("engine:{name}"), taken_boot_ns: second * SECOND_NS, points: Ok(points) }
}

/// The value of the one point of this series whose labels end so.
fn find(ledger: &Ledger, second: u64, series: &Series, labels: &[&str]) -> Option<f64> {
    let points = ledger.points(second * SECOND_NS);
    let mut fitting = points.iter().filter(|point| {
        point.series == series && labels.iter().all(|label| point.labels.iter().any(|other| other == label))
    });
    let found = fitting.next()?.number();
    assert!(fitting.next().is_none(), "{} {labels:?} is ambiguous", series.name);
    found
}

fn assert_near(found: Option<f64>, expect: f64) {
    let found = found.expect("there is a figure");
    assert!((found - expect).abs() <= expect.abs() * 1e-9, "{found} is not {expect}");
}

/// As a daemon finds it that begins then.
fn restarted(ledger: &Ledger, second: u64, boot_id: &str, prices: &str) -> Ledger {
    let state = tempfile::tempdir().expect("a scratch directory");
    LedgerFile::new(state.path(), "this boot".to_owned()).write(ledger, second * SECOND_NS);
    let prices: PriceBook = serde_yaml::from_str(prices).expect("a good price book");
    let kept = LedgerFile::new(state.path(), boot_id.to_owned()).read(Some(&prices), second * SECOND_NS);
    kept.expect("a good file").unwrap_or_else(|| Ledger::new(Some(prices)))
}

/// 300 s of one GPU and one engine, 10 tokens and 400 J a second.
fn at_work() -> Ledger {
    let mut ledger = ledger(EUR_GPU);
    for second in (0..=300_u32).step_by(5) {
        work(&mut ledger, second);
    }
    ledger
}

fn work(ledger: &mut Ledger, second: u32) {
    ledger.observe(&gpus(second.into(), &[("GPU-0", "NVIDIA H100", 400.0 * f64::from(second))]));
    ledger.observe(&engine(second.into(), "e", None, 10.0 * f64::from(second)));
    ledger.tick(u64::from(second) * SECOND_NS);
}

#[test]
fn a_daemon_that_begins_again_goes_on_with_what_was_kept() {
    let mut ledger = restarted(&at_work(), 360, "this boot", EUR_GPU);
    assert_near(find(&ledger, 360, &cost::PER_TOKEN, &["generated", "start"]), 0.3 / 3000.0);
    // Until the GPU worker speaks nothing is priced; then the pause is, with the tokens and joules that belong to it.
    ledger.tick(362 * SECOND_NS);
    assert_near(find(&ledger, 362, &cost::TOTAL, &["EUR", "gpu"]), 0.3);
    for second in [365, 370] {
        work(&mut ledger, second);
    }
    assert_near(find(&ledger, 370, &cost::TOTAL, &["EUR", "gpu"]), 0.37);
    assert_near(find(&ledger, 370, &cost::WINDOW_TOKENS, &["generated", "start"]), 3700.0);
    assert_near(find(&ledger, 370, &cost::PER_TOKEN, &["generated", "start"]), 0.37 / 3700.0);
    assert_near(find(&ledger, 370, &cost::ENERGY_PER_TOKEN_JOULES, &["generated", "start"]), 40.0);
    assert_near(find(&ledger, 370, &cost::WINDOW_SECONDS, &["5m"]), 300.0);
}

#[test]
fn after_a_boot_only_what_was_spent_goes_on() {
    let mut ledger = restarted(&at_work(), 20, "another boot", EUR_GPU);
    for second in [20, 30] {
        work(&mut ledger, second);
    }
    assert_near(find(&ledger, 30, &cost::TOTAL, &["EUR", "gpu"]), 0.31);
    assert_near(find(&ledger, 30, &cost::WINDOW_TOKENS, &["generated", "start"]), 100.0);
    assert_near(find(&ledger, 30, &cost::WINDOW_SECONDS, &["start"]), 10.0);
}

#[test]
fn money_of_another_currency_is_not_carried_over() {
    let ledger = restarted(&at_work(), 300, "this boot", "{currency: USD, node_per_hour: 1}");
    assert_eq!(find(&ledger, 300, &cost::TOTAL, &[]), None);
}

#[test]
fn gpus_that_nobody_asks_for_any_more_cost_nothing() {
    let mut ledger = restarted(&at_work(), 300, "this boot", EUR_GPU).without_gpus();
    ledger.observe(&no_gpu(300));
    ledger.tick(400 * SECOND_NS);
    assert_near(find(&ledger, 400, &cost::TOTAL, &["EUR", "node"]), 0.01);
    assert_near(find(&ledger, 400, &cost::WINDOW_SECONDS, &["start"]), 100.0);
}

#[test]
fn what_is_no_ledger_is_an_error_and_no_ledger_is_none() {
    let state = tempfile::tempdir().expect("a scratch directory");
    let file = LedgerFile::new(state.path(), String::new());
    assert!(file.read(None, 0).expect("nothing is no error").is_none());
    for text in ["", "{}", r#"{"format": "plumbline-cost/v2"}"#] {
        std::fs::write(state.path().join("cost.json"), text).expect("a scratch file");
        assert!(file.read(None, 0).is_err(), "{text:?}");
    }
}

#[test]
fn the_worked_example() {
    let mut ledger = ledger(EUR_GPU);
    // Prompt and generated tokens and joules before the daemon's time are not counted.
    for second in (0..=300).step_by(5) {
        // Busy until 180 s, idle after.
        let busy = f64::from(u32::try_from(second.min(180)).expect("small")) / 180.0;
        let time = f64::from(u32::try_from(second).expect("small"));
        ledger.observe(&gpus(second, &[("GPU-1", "NVIDIA H100 80GB HBM3", 7e6 + 400.0 * time)]));
        ledger.observe(&engine(second, "e", Some(1e9 + 40_000.0 * busy), 5e9 + 60_000.0 * busy));
        ledger.tick(second * SECOND_NS);
    }
    for window in ["5m", "start"] {
        assert_near(find(&ledger, 300, &cost::PER_TOKEN, &["EUR", "gpu", "e", "m", "generated", window]), 0.000_005);
        assert_near(find(&ledger, 300, &cost::PER_TOKEN, &["EUR", "gpu", "e", "m", "all", window]), 0.000_003);
        assert_near(find(&ledger, 300, &cost::ENERGY_PER_TOKEN_JOULES, &["e", "m", "generated", window]), 2.0);
        assert_near(find(&ledger, 300, &cost::ENERGY_PER_TOKEN_JOULES, &["e", "m", "all", window]), 1.2);
        assert_near(find(&ledger, 300, &cost::WINDOW_TOKENS, &["e", "m", "generated", window]), 60_000.0);
        assert_near(find(&ledger, 300, &cost::WINDOW_TOKENS, &["e", "m", "all", window]), 100_000.0);
        assert_near(find(&ledger, 300, &cost::WINDOW_SECONDS, &[window]), 300.0);
    }
    assert_near(find(&ledger, 300, &cost::TOTAL, &["EUR", "gpu"]), 0.30);
    assert_near(find(&ledger, 300, &cost::PER_HOUR, &["EUR", "gpu"]), 3.6);
}

#[test]
fn an_old_window_forgets_and_the_start_remembers() {
    let mut ledger = ledger("{currency: EUR, node_per_hour: 0.36}");
    ledger.observe(&no_gpu(0));
    for second in (0..=1000).step_by(5) {
        let tokens = if second <= 500 { second } else { 500 };
        ledger.observe(&engine(second, "e", None, f64::from(u32::try_from(tokens).expect("small"))));
        ledger.tick(second * SECOND_NS);
    }
    assert_eq!(find(&ledger, 1000, &cost::PER_TOKEN, &["generated", "5m"]), None, "no tokens, no price");
    assert_eq!(find(&ledger, 1000, &cost::WINDOW_TOKENS, &["generated", "5m"]), Some(0.0));
    assert_near(find(&ledger, 1000, &cost::WINDOW_SECONDS, &["5m"]), 300.0);
    assert_near(find(&ledger, 1000, &cost::PER_HOUR, &["EUR", "node"]), 0.36);
    assert_near(find(&ledger, 1000, &cost::TOTAL, &["EUR", "node"]), 0.1);
    assert_near(find(&ledger, 1000, &cost::PER_TOKEN, &["generated", "start"]), 0.1 / 500.0);
}

#[test]
fn a_restarted_engine_is_counted_from_its_zero_and_only_it() {
    let mut ledger = ledger("{currency: EUR, node_per_hour: 3.6}");
    ledger.observe(&no_gpu(0));
    for (second, a, b) in [(0, 1000.0, 50.0), (5, 1100.0, 60.0), (10, 30.0, 70.0), (15, 40.0, 80.0)] {
        ledger.observe(&engine(second, "a", None, a));
        ledger.observe(&engine(second, "b", None, b));
    }
    ledger.tick(20 * SECOND_NS);
    assert_eq!(find(&ledger, 20, &cost::WINDOW_TOKENS, &["a", "generated", "start"]), Some(140.0));
    assert_eq!(find(&ledger, 20, &cost::WINDOW_TOKENS, &["b", "generated", "start"]), Some(30.0));
    assert_near(find(&ledger, 20, &cost::PER_TOKEN, &["a", "generated", "start"]), 0.02 / 170.0);
    assert_near(find(&ledger, 20, &cost::PER_TOKEN, &["b", "generated", "start"]), 0.02 / 170.0);
}

#[test]
fn an_outage_costs_and_its_tokens_are_counted_afterwards() {
    let mut ledger = ledger("{currency: EUR, node_per_hour: 3.6}");
    ledger.observe(&no_gpu(0));
    ledger.observe(&engine(0, "e", None, 100.0));
    let down = Sample { source: "engine:e".into(), taken_boot_ns: 50 * SECOND_NS, points: Err("down".into()) };
    ledger.observe(&down);
    ledger.observe(&engine(100, "e", None, 200.0));
    ledger.tick(100 * SECOND_NS);
    assert_near(find(&ledger, 100, &cost::PER_TOKEN, &["generated", "start"]), 0.1 / 100.0);
}

#[test]
fn an_engine_that_hides_its_prompt_tokens_makes_the_price_of_all_tokens_unknown() {
    let mut ledger = ledger("{currency: EUR, node_per_hour: 3.6}");
    ledger.observe(&no_gpu(0));
    for (second, tokens) in [(0, 0.0), (10, 10.0)] {
        ledger.observe(&engine(second, "open", Some(tokens), tokens));
        ledger.observe(&engine(second, "shut", None, tokens));
    }
    ledger.tick(10 * SECOND_NS);
    assert_eq!(find(&ledger, 10, &cost::PER_TOKEN, &["open", "all", "5m"]), None);
    assert_near(find(&ledger, 10, &cost::PER_TOKEN, &["open", "generated", "5m"]), 0.01 / 20.0);
}

#[test]
fn a_gpu_without_a_price_makes_the_cost_unknown_and_not_smaller() {
    let mut ledger = ledger(EUR_GPU);
    for second in [0, 10] {
        let time = f64::from(u32::try_from(second).expect("small"));
        ledger.observe(&gpus(second, &[("GPU-1", "NVIDIA H100", time), ("GPU-2", "NVIDIA T4", time)]));
        ledger.observe(&engine(second, "e", Some(time), time));
    }
    ledger.tick(10 * SECOND_NS);
    assert_eq!(find(&ledger, 10, &cost::PER_HOUR, &[]), None);
    assert_eq!(find(&ledger, 10, &cost::PER_TOKEN, &["generated", "5m"]), None);
    assert_eq!(find(&ledger, 10, &cost::TOTAL, &[]), None);
    assert_near(find(&ledger, 10, &cost::ENERGY_PER_TOKEN_JOULES, &["generated", "5m"]), 2.0);
}

#[test]
fn a_gpu_that_the_driver_loses_is_paid_for() {
    let mut ledger = ledger(EUR_GPU);
    ledger.observe(&gpus(0, &[("GPU-1", "H100", 0.0), ("GPU-2", "H100", 0.0)]));
    ledger.observe(&no_gpu(1800));
    ledger.tick(3600 * SECOND_NS);
    assert_near(find(&ledger, 3600, &cost::TOTAL, &["EUR", "gpu"]), 7.2);
}

#[test]
fn a_node_is_called_one_without_gpu_only_when_that_is_known() {
    let mut late = ledger(EUR_GPU);
    late.tick(0);
    late.tick(20 * SECOND_NS);
    assert_eq!(find(&late, 20, &cost::TOTAL, &[]), None);
    late.observe(&gpus(20, &[("GPU-1", "H100", 0.0)]));
    late.tick(36 * SECOND_NS);
    assert_near(find(&late, 36, &cost::TOTAL, &["EUR", "gpu"]), 0.036);

    let mut silent = ledger(EUR_GPU);
    silent.tick(0);
    silent.tick(36 * SECOND_NS);
    assert_near(find(&silent, 36, &cost::TOTAL, &["EUR", "node"]), 0.0036);
    // The worker speaks after all: the money spent stays, the windows begin anew.
    silent.observe(&gpus(36, &[("GPU-1", "H100", 0.0)]));
    silent.tick(46 * SECOND_NS);
    assert_near(find(&silent, 46, &cost::TOTAL, &["EUR", "node"]), 0.0036);
    assert_near(find(&silent, 46, &cost::TOTAL, &["EUR", "gpu"]), 0.01);
    assert_near(find(&silent, 46, &cost::WINDOW_SECONDS, &["start"]), 10.0);
}

#[test]
fn a_simulated_gpu_is_called_so() {
    let mut ledger = ledger(EUR_GPU);
    let points = Ok(vec![Point::new(&INFO, &["GPU-1", "H100", "true"], 1.0)]);
    ledger.observe(&Sample { source: "gpu".into(), taken_boot_ns: 0, points });
    ledger.tick(10 * SECOND_NS);
    assert_near(find(&ledger, 10, &cost::TOTAL, &["EUR", "gpu_simulated"]), 0.01);
}

#[test]
fn without_prices_there_is_energy_and_no_cost() {
    let mut ledger = Ledger::new(None);
    for second in [0, 10] {
        let time = f64::from(u32::try_from(second).expect("small"));
        ledger.observe(&gpus(second, &[("GPU-1", "H100", time)]));
        ledger.observe(&engine(second, "e", None, time));
    }
    ledger.tick(10 * SECOND_NS);
    let points = ledger.points(10 * SECOND_NS);
    assert!(points.iter().all(|point| !point.labels.iter().any(|label| label == "gpu")));
    assert_near(find(&ledger, 10, &cost::ENERGY_PER_TOKEN_JOULES, &["5m"]), 1.0);
}

#[test]
fn models_without_end_do_not_fill_the_memory_and_are_not_left_out_in_silence() {
    let mut ledger = ledger("{currency: EUR, node_per_hour: 3.6}");
    ledger.observe(&no_gpu(0));
    for second in 0..MAX_MODELS as u64 + 5 {
        ledger.observe(&engine(second, &format!("e{second}"), None, 0.0));
        ledger.observe(&engine(second, "e0", None, f64::from(u32::try_from(second).expect("small"))));
        ledger.tick(second * SECOND_NS);
    }
    assert_eq!(ledger.models.len(), MAX_MODELS);
    assert_eq!(find(&ledger, 1004, &cost::PER_TOKEN, &["e0", "generated", "5m"]), None);
    // An hour later those that are gone have made room, and the tokens of all are still in the sum.
    for second in [3000, 4700, 5000] {
        ledger.observe(&engine(second, "e0", None, 2000.0));
        ledger.tick(second * SECOND_NS);
    }
    assert_eq!(ledger.models.len(), 1);
}

#[test]
fn a_retired_model_stays_in_the_sum_since_start() {
    let mut ledger = ledger("{currency: EUR, node_per_hour: 3.6}");
    ledger.observe(&no_gpu(0));
    for (second, tokens) in [(0, 0.0), (10, 300.0)] {
        ledger.observe(&engine(second, "gone", None, tokens));
    }
    for (second, tokens) in [(0, 0.0), (3500, 100.0), (3605, 100.0), (3700, 100.0)] {
        ledger.observe(&engine(second, "here", None, tokens));
        ledger.tick(second * SECOND_NS);
    }
    assert_eq!(find(&ledger, 3700, &cost::WINDOW_TOKENS, &["gone"]), None);
    assert_near(find(&ledger, 3700, &cost::PER_TOKEN, &["here", "generated", "start"]), 3.7 / 400.0);
}

proptest! {
    #[test]
    fn the_spend_does_not_depend_on_when_it_is_looked_at(
        looks in prop::collection::vec(0..10_000_u64, 0..40),
        gpu_count in 0..4_usize,
    ) {
        let run = |mut looks: Vec<u64>| {
            let mut ledger = ledger(EUR_GPU);
            let present: Vec<_> = ["GPU-1", "GPU-2", "GPU-3"][..gpu_count.min(3)].iter().map(|gpu| (*gpu, "H100", 0.0)).collect();
            ledger.observe(&gpus(0, &present));
            looks.sort_unstable();
            let mut last = 0.0;
            for look in looks.into_iter().chain([10_000]) {
                ledger.tick(look * SECOND_NS);
                let total = find(&ledger, look, &cost::TOTAL, &[]).unwrap_or(0.0);
                assert!(total >= last, "the total only grows");
                last = total;
            }
            last
        };
        let (once, often) = (run(Vec::new()), run(looks));
        prop_assert!(once > 0.0 && (once - often).abs() <= once * 1e-9, "{once} {often}");
    }

    #[test]
    fn what_the_tokens_cost_together_is_what_was_spent_whatever_restarts(
        steps in prop::collection::vec((1..30_u64, prop::collection::vec((0..500_u32, 0..500_u32, prop::bool::weighted(0.2)), 3)), 1..60),
    ) {
        let mut ledger = ledger("{currency: EUR, node_per_hour: 3.6}");
        ledger.observe(&no_gpu(0));
        let names = ["a", "b", "c"];
        let mut counters = [(0.0, 0.0); 3];
        let mut truth = [(0.0, 0.0); 3];
        let mut second = 0;
        for name in names {
            ledger.observe(&engine(0, name, Some(0.0), 0.0));
        }
        ledger.tick(0);
        for (pause, engines) in steps {
            second += pause;
            for (index, (prompt, generated, restarts)) in engines.into_iter().enumerate() {
                let (prompt, generated) = (f64::from(prompt), f64::from(generated));
                // A restart is seen when the counter is smaller than before.
                if restarts && prompt < counters[index].0 && generated < counters[index].1 {
                    counters[index] = (0.0, 0.0);
                }
                counters[index].0 += prompt;
                counters[index].1 += generated;
                truth[index].0 += prompt;
                truth[index].1 += generated;
                ledger.observe(&engine(second, names[index], Some(counters[index].0), counters[index].1));
            }
            ledger.tick(second * SECOND_NS);
        }
        let spent = find(&ledger, second, &cost::TOTAL, &[]).expect("time has passed");
        let mut shared = 0.0;
        for (name, (prompt, generated)) in names.into_iter().zip(truth) {
            prop_assert_eq!(find(&ledger, second, &cost::WINDOW_TOKENS, &[name, "generated", "start"]), Some(generated));
            prop_assert_eq!(find(&ledger, second, &cost::WINDOW_TOKENS, &[name, "all", "start"]), Some(prompt + generated));
            let per_token = find(&ledger, second, &cost::PER_TOKEN, &[name, "generated", "start"]);
            prop_assert_eq!(per_token.is_some(), generated > 0.0);
            shared += per_token.unwrap_or(0.0) * generated;
        }
        if truth.iter().any(|(_, generated)| *generated > 0.0) {
            prop_assert!((shared - spent).abs() <= spent * 1e-9, "{} of {}", shared, spent);
        }
    }

    #[test]
    fn no_reading_makes_a_figure_negative_or_endless(
        readings in prop::collection::vec((0..100_u64, any::<f64>(), any::<f64>()), 1..40),
    ) {
        let mut ledger = ledger(EUR_GPU);
        for (second, tokens, joules) in readings {
            ledger.observe(&gpus(second, &[("GPU-1", "H100", joules)]));
            ledger.observe(&engine(second, "e", Some(joules), tokens));
            ledger.tick(second * SECOND_NS);
            for point in ledger.points(second * SECOND_NS) {
                let number = point.number().expect("all are numbers");
                prop_assert!(number >= 0.0, "{point:?}");
            }
        }
    }
}
