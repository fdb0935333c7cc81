//! Pages of real engines, translated.

use std::fmt::Write as _;

use expect_test::{Expect, expect};
use proptest::prelude::*;

use super::*;
use crate::engines::dialect;
use crate::series::{Histogram, Value};

const VLLM: &str = include_str!("../testdata/vllm-0.32.0.txt");
const LLAMACPP: &str = include_str!("../testdata/llamacpp-0.3.36.txt");

fn render(page: &str) -> String {
    let Some(reading) = translate(page.as_bytes(), Format::Text, None, "e", "") else {
        return "not recognised\n".into();
    };
    let mut out = format!("{}\n", reading.dialect.name);
    for Point { series, labels, value } in &reading.points {
        let name = series.name.trim_start_matches("plumbline_engine_");
        match value {
            Value::Number(number) => writeln!(out, "{name} {labels:?} {number}"),
            Value::Histogram(Histogram { buckets, sum, count }) => {
                writeln!(out, "{name} {labels:?} {} buckets to {:?}, {sum} s, {count}", buckets.len(), buckets.last())
            }
        }
        .expect("a String takes everything");
    }
    if let Some(first) = &reading.first_unusable {
        writeln!(out, "{} unusable, first: {first}", reading.unusable_lines).expect("a String takes everything");
    }
    out
}

#[expect(clippy::needless_pass_by_value, reason = "expect! makes a value")]
fn check(page: &str, expect: Expect) {
    expect.assert_eq(&render(page));
}

#[test]
fn a_page_of_vllm_0_32() {
    check(
        VLLM,
        expect![[r#"
            vllm
            requests_running ["e", "tiny-llama"] 4
            requests_waiting ["e", "tiny-llama"] 8
            requests_waiting_by_reason ["e", "tiny-llama", "capacity"] 8
            requests_waiting_by_reason ["e", "tiny-llama", "deferred"] 0
            kv_cache_usage_ratio ["e", "tiny-llama"] 0.9743589743589743
            kv_cache_capacity_tokens ["e", "tiny-llama"] 1280
            preemptions_total ["e", "tiny-llama"] 40
            prompt_tokens_total ["e", "tiny-llama"] 2650
            prompt_tokens_cached_total ["e", "tiny-llama"] 2080
            generation_tokens_total ["e", "tiny-llama"] 7015
            requests_finished_total ["e", "tiny-llama", "abort"] 0
            requests_finished_total ["e", "tiny-llama", "error"] 0
            requests_finished_total ["e", "tiny-llama", "length"] 21
            requests_finished_total ["e", "tiny-llama", "other"] 0
            requests_finished_total ["e", "tiny-llama", "stop"] 2
            requests_rejected_total ["e", "tiny-llama", "max_num_queued_reqs"] 0
            requests_rejected_total ["e", "tiny-llama", "max_num_queued_tokens"] 0
            http_requests_total ["e", "tiny-llama", "2xx"] 24
            prefix_cache_query_tokens_total ["e", "tiny-llama"] 4730
            prefix_cache_hit_tokens_total ["e", "tiny-llama"] 2080
            steps_total ["e", "tiny-llama"] 2088
            step_tokens_total ["e", "tiny-llama"] 9665
            time_to_first_token_seconds ["e", "tiny-llama"] 23 buckets to Some((inf, 28)), 52.53018617630005 s, 28
            inter_token_latency_seconds ["e", "tiny-llama"] 20 buckets to Some((inf, 6987)), 69.88006034099863 s, 6987
            time_per_output_token_seconds ["e", "tiny-llama"] 20 buckets to Some((inf, 23)), 0.6404157296970385 s, 23
            request_duration_seconds ["e", "tiny-llama"] 22 buckets to Some((inf, 23)), 95.66609621047974 s, 23
            queue_time_seconds ["e", "tiny-llama"] 22 buckets to Some((inf, 23)), 34.84382188700124 s, 23
            prefill_time_seconds ["e", "tiny-llama"] 22 buckets to Some((inf, 23)), 0.5665937839994513 s, 23
            decode_time_seconds ["e", "tiny-llama"] 22 buckets to Some((inf, 23)), 59.55429823299846 s, 23
            request_prompt_tokens ["e", "tiny-llama"] 11 buckets to Some((inf, 23)), 3852 s, 23
            request_generation_tokens ["e", "tiny-llama"] 11 buckets to Some((inf, 23)), 6355 s, 23
        "#]],
    );
}

#[test]
fn a_page_of_llamacpp() {
    check(
        LLAMACPP,
        expect![[r#"
            llamacpp
            requests_running ["e", ""] 4
            requests_waiting ["e", ""] 8
            prompt_tokens_total ["e", ""] 226
            prompt_tokens_cached_total ["e", ""] 121
            generation_tokens_total ["e", ""] 240
            speculative_drafts_total ["e", ""] 0
            speculative_draft_tokens_total ["e", ""] 0
            speculative_accepted_tokens_total ["e", ""] 0
            steps_total ["e", ""] 84
            busy_seconds_total ["e", "", "prefill"] 0.956943
            busy_seconds_total ["e", "", "decode"] 6.70271
        "#]],
    );
}

#[test]
fn proxies_that_rename_change_nothing() {
    let plain = render(VLLM);
    for (from, to) in
        [("vllm:", "vllm_"), ("vllm:", "ray_vllm_"), ("vllm:", "ray_vllm:"), ("vllm:", "kserve_vllm:"), ("vllm:", "")]
    {
        assert_eq!(render(&VLLM.replace(from, to)), plain, "{from} -> {to}");
    }
    assert_eq!(render(&VLLM.replace("model_name=", "model=")), plain);
    assert_eq!(render(&VLLM.replace('\n', "\r\n")), plain);
    assert_eq!(render(&LLAMACPP.replace("llamacpp:", "llamacpp_")), render(LLAMACPP));
}

#[test]
fn a_page_that_carries_both_spellings_is_counted_once() {
    let again: String = VLLM.split_inclusive('\n').filter(|line| line.starts_with("vllm:")).collect();
    assert_eq!(render(&format!("{VLLM}{}", again.replace("vllm:", "ray_vllm_"))), render(VLLM));
}

#[test]
fn the_order_of_lines_and_labels_does_not_matter() {
    let mut lines: Vec<&str> = VLLM.lines().collect();
    lines.reverse();
    assert_eq!(render(&lines.join("\n")), render(VLLM));
    check(
        "vllm:num_requests_running{model_name=\"m\",engine=\"0\"} 1\nvllm:num_requests_running{engine=\"0\",model_name=\"m\"} 1\n",
        expect![[r#"
            vllm
            requests_running ["e", "m"] 1
            1 unusable, first: vllm:num_requests_running stands twice with the same labels
        "#]],
    );
}

#[test]
fn older_names_serve_where_the_newer_are_missing() {
    check(
        "vllm:num_requests_running{model_name=\"m\"} 1\nvllm:gpu_cache_usage_perc{model_name=\"m\"} 0.5\n\
         vllm:time_per_output_token_seconds_bucket{model_name=\"m\",le=\"1\"} 2\n\
         vllm:time_per_output_token_seconds_sum{model_name=\"m\"} 3\n\
         vllm:time_per_output_token_seconds_count{model_name=\"m\"} 4\n",
        expect![[r#"
            vllm
            requests_running ["e", "m"] 1
            kv_cache_usage_ratio ["e", "m"] 0.5
            inter_token_latency_seconds ["e", "m"] 2 buckets to Some((inf, 4)), 3 s, 4
        "#]],
    );
    // Where both stand, as in vLLM 0.10, the newer is read and nothing is added up.
    check(
        "vllm:num_requests_running{model_name=\"m\"} 1\nvllm:gpu_cache_usage_perc{model_name=\"m\"} 0.5\nvllm:kv_cache_usage_perc{model_name=\"m\"} 0.25\n",
        expect![[r#"
            vllm
            requests_running ["e", "m"] 1
            kv_cache_usage_ratio ["e", "m"] 0.25
        "#]],
    );
}

#[test]
fn prompt_tokens_are_the_computed_ones_or_absent() {
    let running = "vllm:num_requests_running 0\n";
    check(
        &format!("{running}vllm:prompt_tokens_total 100\nvllm:prompt_tokens_cached_total 40\n"),
        expect![[r#"
        vllm
        requests_running ["e", ""] 0
        prompt_tokens_total ["e", ""] 60
        prompt_tokens_cached_total ["e", ""] 40
    "#]],
    );
    check(
        &format!("{running}vllm:prompt_tokens_total 100\n"),
        expect![[r#"
        vllm
        requests_running ["e", ""] 0
    "#]],
    );
    check(
        &format!("{running}vllm:prompt_tokens_total 10\nvllm:prompt_tokens_cached_total 40\n"),
        expect![[r#"
        vllm
        requests_running ["e", ""] 0
        prompt_tokens_cached_total ["e", ""] 40
        1 unusable, first: prompt_tokens_total contradicts itself
    "#]],
    );
}

#[test]
fn ranks_are_summed_and_the_fullest_cache_speaks() {
    check(
        "vllm:num_requests_running{engine=\"0\",model_name=\"m\"} 1\nvllm:num_requests_running{engine=\"1\",model_name=\"m\"} 2\n\
         vllm:kv_cache_usage_perc{engine=\"0\",model_name=\"m\"} 0.25\nvllm:kv_cache_usage_perc{engine=\"1\",model_name=\"m\"} 0.75\n\
         vllm:num_requests_running{engine=\"0\",model_name=\"other model\"} 5\n",
        expect![[r#"
            vllm
            requests_running ["e", "m"] 3
            requests_running ["e", "other model"] 5
            kv_cache_usage_ratio ["e", "m"] 0.75
        "#]],
    );
}

#[test]
fn impossible_values_make_the_series_absent_and_are_counted() {
    check(
        "llamacpp:requests_processing nan\nllamacpp:requests_deferred -1\nllamacpp:tokens_predicted_total +Inf\nllamacpp:prompt_tokens_total 7\nllamacpp:n_busy_slots_per_decode nan\nbroken{\n",
        expect![[r#"
            llamacpp
            prompt_tokens_total ["e", ""] 7
            4 unusable, first: llamacpp:requests_processing cannot be NaN
        "#]],
    );
    // One rank of two is unknown, so their sum is.
    check(
        "vllm:num_requests_running{engine=\"0\"} 1\nvllm:num_requests_running{engine=\"1\"} NaN\nvllm:kv_cache_usage_perc 87.5\n",
        expect![[r#"
            vllm
            2 unusable, first: vllm:num_requests_running cannot be NaN
        "#]],
    );
}

#[test]
fn numbers_that_are_infinite_only_together_are_no_number() {
    check(
        "vllm:num_requests_running{engine=\"0\"} 1e308\nvllm:num_requests_running{engine=\"1\"} 1e308\n",
        expect![[r#"
            vllm
            1 unusable, first: num_requests_running contradicts itself
        "#]],
    );
}

#[test]
fn bounds_of_buckets_are_numbers_and_counts_are_cumulative() {
    let histogram = |buckets: &str| {
        format!(
            "vllm:num_requests_running 0\n{buckets}vllm:time_to_first_token_seconds_sum 1.5\nvllm:time_to_first_token_seconds_count 3\n"
        )
    };
    let bucket = |le: &str, count: &str| format!("vllm:time_to_first_token_seconds_bucket{{le=\"{le}\"}} {count}\n");
    check(
        &histogram(&(bucket("1.0", "1") + &bucket("2.5e+00", "2") + &bucket("+Inf", "3"))),
        expect![[r#"
        vllm
        requests_running ["e", ""] 0
        time_to_first_token_seconds ["e", ""] 3 buckets to Some((inf, 3)), 1.5 s, 3
    "#]],
    );
    for contradiction in [
        // Without `+Inf`, more below a bound than there are at all.
        bucket("1", "1") + &bucket("2.5", "7"),
        // One bound, written twice.
        bucket("0", "1") + &bucket("-0", "1") + &bucket("+Inf", "3"),
    ] {
        check(
            &histogram(&contradiction),
            expect![[r#"
                vllm
                requests_running ["e", ""] 0
                1 unusable, first: time_to_first_token_seconds contradicts itself
            "#]],
        );
    }
    check(
        &histogram(&bucket("1", "1")),
        expect![[r#"
        vllm
        requests_running ["e", ""] 0
        time_to_first_token_seconds ["e", ""] 2 buckets to Some((inf, 3)), 1.5 s, 3
    "#]],
    );
    check(
        &histogram(&(bucket("1", "2") + &bucket("2", "1") + &bucket("+Inf", "3"))),
        expect![[r#"
        vllm
        requests_running ["e", ""] 0
        1 unusable, first: time_to_first_token_seconds contradicts itself
    "#]],
    );
    check(
        &histogram(&(bucket("1", "1") + &bucket("1.0", "1") + &bucket("+Inf", "3"))),
        expect![[r#"
        vllm
        requests_running ["e", ""] 0
        1 unusable, first: time_to_first_token_seconds contradicts itself
    "#]],
    );
    check(
        &histogram(&bucket("+Inf", "4")),
        expect![[r#"
        vllm
        requests_running ["e", ""] 0
        1 unusable, first: time_to_first_token_seconds contradicts itself
    "#]],
    );
    check(
        &histogram(&bucket("wide", "3")),
        expect![[r#"
            vllm
            requests_running ["e", ""] 0
            1 unusable, first: vllm:time_to_first_token_seconds_bucket has no usable `le`
        "#]],
    );
}

#[test]
fn pages_of_others_are_not_recognised() {
    check(
        "",
        expect![[r#"
        not recognised
    "#]],
    );
    check(
        "up 1\nprocess_cpu_seconds_total 3\n",
        expect![[r#"
        not recognised
    "#]],
    );
    check(
        "sglang:num_running_reqs{model_name=\"m\"} 1\n",
        expect![[r#"
            sglang
            requests_running ["e", "m"] 1
        "#]],
    );
    check(
        "lmdeploy:num_requests_running{model_name=\"m\"} 1\n",
        expect![[r#"
            lmdeploy
            requests_running ["e", "m"] 1
        "#]],
    );
    check(
        "# TYPE vllm:num_requests_running gauge\n",
        expect![[r#"
        not recognised
    "#]],
    );
}

#[test]
fn models_beyond_the_cap_are_other() {
    let page: String =
        (0..MAX_MODELS + 10).map(|n| format!("vllm:num_requests_running{{model_name=\"m{n}\"}} 1\n")).collect();
    let reading = translate(page.as_bytes(), Format::Text, None, "e", "").expect("a page of vLLM");
    assert_eq!(reading.points.len(), MAX_MODELS + 1);
    assert_eq!(reading.points.iter().filter_map(Point::number).sum::<f64>(), 74.0);
    assert_eq!(reading.points.last().map(|point| point.labels[1].as_str()), Some("other"));
}

#[test]
fn a_page_is_read_only_as_the_dialect_that_the_configuration_names() {
    let read = |name| translate(VLLM.as_bytes(), Format::Text, dialect::by_name(name), "e", "").is_some();
    assert!(read("vllm"));
    assert!(!read("llamacpp"));
}

#[test]
fn the_model_of_a_page_without_labels_comes_from_outside() {
    let reading = translate(LLAMACPP.as_bytes(), Format::Text, None, "e", "smollm2").expect("a page of llama.cpp");
    assert!(reading.points.iter().all(|point| point.labels[..2] == ["e", "smollm2"]));
}

proptest! {
    #[test]
    fn a_damaged_page_never_panics_and_never_yields_the_impossible(
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..200),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut page = VLLM.as_bytes().to_vec();
        for (at, byte) in damage {
            let at = at.index(page.len());
            page[at] = byte;
        }
        page.truncate(cut.index(page.len()) + 1);
        let Some(reading) = translate(&page, Format::Text, None, "e", "") else { return Ok(()) };
        for point in reading.points {
            match point.value {
                Value::Number(number) => prop_assert!(number.is_finite() && number >= 0.0),
                Value::Histogram(histogram) => {
                    prop_assert!(histogram.buckets.is_sorted_by(|a, b| a.0 < b.0 && a.1 <= b.1));
                    prop_assert_eq!(histogram.buckets.last().copied(), Some((f64::INFINITY, histogram.count)));
                }
            }
        }
    }
}
