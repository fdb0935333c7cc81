//! Each dialect on a page in its engine's names. Those of SGLang and LMDeploy come from their own metrics code, that of Dynamo from its own
//! frontend; the others here are written by hand from the engines' sources, as `docs/engines.md` names them. Pages that real engines gave are in
//! `translate::tests`.

use expect_test::{Expect, expect};
use plumbline_exposition::Format;

use crate::{
    engines::translate::{explain, translate},
    series::{Histogram, Point, Value},
};

/// What the page has that is of no use.
fn unmapped(page: &str) -> Vec<String> {
    explain(page.as_bytes(), Format::Text, None, "").map(|explained| explained.unmapped).unwrap_or_default()
}

/// The first line of what is told is the dialect and what it knows of the version.
#[expect(clippy::needless_pass_by_value, reason = "expect! makes a value")]
fn check(page: &str, expect: Expect) {
    let Some(reading) = translate(page.as_bytes(), Format::Text, None, "e", "") else {
        panic!("no dialect recognises the page")
    };
    let line = |Point { series, labels, value }: &Point| {
        let name = series.name.trim_start_matches("plumbline_engine_");
        let value = match value {
            Value::Number(number) => number.to_string(),
            Value::Histogram(Histogram { buckets, sum, count }) => {
                format!("{count} in {} buckets, {sum}", buckets.len())
            }
        };
        format!("{name} {} {value}\n", labels[1..].join(" "))
    };
    let head = format!("{} {:?}\n", reading.dialect.name, reading.version);
    let tail = reading.first_unusable.map(|first| format!("unusable: {first}\n")).unwrap_or_default();
    let unmapped: String = unmapped(page).iter().map(|name| format!("of no use: {name}\n")).collect();
    expect.assert_eq(&(head + &reading.points.iter().map(line).collect::<String>() + &tail + &unmapped));
}

#[test]
fn sglang_counts_what_all_ranks_of_one_work_tell_once_and_data_parallel_ranks_together() {
    let rank = |name: &str, dp: u8, tp: u8, more: &str, value: f64| {
        format!(
            "sglang:{name}{{model_name=\"m\",engine_type=\"unified\",tp_rank=\"{tp}\",pp_rank=\"0\",dp_rank=\"{dp}\"{more}}} {value}\n"
        )
    };
    let mut page = String::new();
    for (dp, running) in [(0, 3.0), (1, 5.0)] {
        for tp in [0, 1] {
            page += &rank("num_running_reqs", dp, tp, "", running);
            page += &rank("num_queue_reqs", dp, tp, "", 2.0);
            page += &rank("token_usage", dp, tp, "", running / 10.0);
            page += &rank("max_total_num_tokens", dp, tp, "", 1000.0);
            page += &rank("num_retracted_requests_total", dp, tp, "", 1.0);
            page += &rank("realtime_tokens_total", dp, tp, ",mode=\"prefill_compute\"", 100.0);
            page += &rank("realtime_tokens_total", dp, tp, ",mode=\"prefill_cache\"", 20.0);
            page += &rank("realtime_tokens_total", dp, tp, ",mode=\"decode\"", 50.0);
            page += &rank("forward_execution_seconds_total", dp, tp, ",category=\"decode\"", 7.0);
            page += &rank("cache_hit_rate", dp, tp, "", 0.3);
        }
    }
    page += "sglang:prompt_tokens_total{model_name=\"m\"} 90\nsglang:generation_tokens_total{model_name=\"m\"} 40\n\
             sglang:num_requests_total{model_name=\"m\"} 9\nsglang:num_aborted_requests_total{model_name=\"m\"} 2\n";
    check(
        &page,
        expect![[r#"
        sglang "0.5.20 or newer"
        requests_running m 8
        requests_waiting m 4
        kv_cache_usage_ratio m 0.5
        kv_cache_capacity_tokens m 2000
        preemptions_total m 2
        prompt_tokens_total m 200
        prompt_tokens_cached_total m 40
        generation_tokens_total m 100
        requests_finished_total m unspecified 9
        requests_finished_total m abort 2
        busy_seconds_total m decode 14
        of no use: sglang:cache_hit_rate
    "#]],
    );
    // As sgl-router and Prometheus 3 spell it.
    let page = page.replace("sglang:", "sglang_");
    assert!(translate(page.as_bytes(), Format::Text, None, "e", "").is_some_and(|reading| reading.points.len() > 8));
}

/// What it generates for others is in `generation_tokens_total` when they end, and was never its own to count.
#[test]
fn a_node_of_sglang_that_only_prefills_has_generated_nothing() {
    check(
        "sglang:num_running_reqs{model_name=\"m\"} 1\nsglang:realtime_tokens_total{model_name=\"m\",mode=\"prefill_compute\"} 100\n\
         sglang:generation_tokens_total{model_name=\"m\"} 7\nsglang:prompt_tokens_total{model_name=\"m\"} 50\n\
         sglang:cached_tokens_total{model_name=\"m\",cache_source=\"device\"} 5\n",
        expect![[r#"
            sglang "0.5"
            requests_running m 1
            prompt_tokens_total m 100
        "#]],
    );
}

/// From its own metrics code (`tests/engine_pages.py`): two tensor-parallel ranks of one work, with priorities.
#[test]
fn a_page_that_sglang_0_5_23_makes() {
    let page = include_str!("../testdata/sglang-0.5.23.txt");
    let Some(reading) = translate(page.as_bytes(), Format::Text, None, "e", "") else { panic!("not recognised") };
    let unmapped = unmapped(page);
    assert!(unmapped.iter().any(|name| name == "sglang:cache_hit_rate") && unmapped.len() > 50);
    assert_eq!(unmapped.len(), reading.unmapped);
    // Its many metrics without use are not listed here.
    let is_of_use = |line: &&str| !unmapped.iter().any(|name| line.starts_with(name.as_str()));
    check(
        &page.split_inclusive('\n').filter(is_of_use).collect::<String>(),
        expect![[r#"
        sglang "0.5.20 or newer"
        requests_running tiny-llama 5
        requests_waiting tiny-llama 2
        kv_cache_usage_ratio tiny-llama 0.75
        kv_cache_capacity_tokens tiny-llama 1000
        preemptions_total tiny-llama 3
        prompt_tokens_total tiny-llama 900
        prompt_tokens_cached_total tiny-llama 300
        generation_tokens_total tiny-llama 1200
        requests_finished_total tiny-llama unspecified 2
        requests_finished_total tiny-llama abort 1
        prefix_cache_query_tokens_total tiny-llama 1200
        prefix_cache_hit_tokens_total tiny-llama 300
        speculative_acceptance_ratio tiny-llama 0.5
        busy_seconds_total tiny-llama decode 6.25
        busy_seconds_total tiny-llama prefill 1.5
        idle_seconds_total tiny-llama 12.5
        time_to_first_token_seconds tiny-llama 2 in 19 buckets, 0.7
        inter_token_latency_seconds tiny-llama 2 in 24 buckets, 0.02
        time_per_output_token_seconds tiny-llama 2 in 24 buckets, 0.017
        request_duration_seconds tiny-llama 2 in 23 buckets, 9
        queue_time_seconds tiny-llama 1 in 41 buckets, 0.25
        request_prompt_tokens tiny-llama 2 in 36 buckets, 1200
        request_generation_tokens tiny-llama 2 in 36 buckets, 1000
    "#]],
    );
}

#[test]
fn sglang_before_it_counted_in_real_time_has_no_prompt_tokens_until_the_cache_was_hit_once() {
    let page = "sglang:num_running_reqs{model_name=\"m\"} 1\nsglang:token_usage{model_name=\"m\"} 0.1\n\
                sglang:prompt_tokens_total{model_name=\"m\"} 90\nsglang:generation_tokens_total{model_name=\"m\"} 40\n";
    check(
        page,
        expect![[r#"
        sglang "0.4"
        requests_running m 1
        kv_cache_usage_ratio m 0.1
        generation_tokens_total m 40
    "#]],
    );
    let hit = "sglang:cached_tokens_total{model_name=\"m\",cache_source=\"device\"} 20\n\
               sglang:cached_tokens_total{model_name=\"m\",cache_source=\"host\"} 10\n";
    check(
        &(page.to_owned() + hit),
        expect![[r#"
        sglang "0.4"
        requests_running m 1
        kv_cache_usage_ratio m 0.1
        prompt_tokens_total m 60
        prompt_tokens_cached_total m 30
        generation_tokens_total m 40
    "#]],
    );
}

#[test]
fn a_page_with_more_replicas_than_a_node_has_is_not_believed() {
    let replica = |dp: u32| format!("sglang:num_running_reqs{{model_name=\"m\",tp_rank=\"0\",dp_rank=\"{dp}\"}} 1\n");
    let page: String = (0..300).map(replica).collect();
    check(
        &page,
        expect![[r#"
            sglang ""
            unusable: sglang:num_running_reqs is told by too many replicas
        "#]],
    );
}

#[test]
fn each_data_parallel_replica_of_sglang_tells_its_queue_by_one_of_its_ranks() {
    let histogram = |tp: u8, dp: u8| {
        ["bucket{le=\"1\",", "bucket{le=\"+Inf\",", "count{", "sum{"].map(|part| {
            format!("sglang:queue_time_seconds_{part}model_name=\"m\",tp_rank=\"{tp}\",dp_rank=\"{dp}\"}} 2\n")
        })
    };
    // Ranks of two works: 0 and 1, 4 and 5.
    let page: String = [(0, 0), (1, 0), (4, 1), (5, 1)].into_iter().flat_map(|(tp, dp)| histogram(tp, dp)).collect();
    check(
        &format!("sglang:num_running_reqs{{model_name=\"m\"}} 1\n{page}"),
        expect![[r#"
            sglang ""
            requests_running m 1
            queue_time_seconds m 4 in 2 buckets, 4
        "#]],
    );
}

#[test]
fn more_models_and_reasons_than_a_node_has_are_added_up_in_other() {
    let line = |n: u32| format!("vllm:num_requests_waiting_by_reason{{model_name=\"x{n}\",reason=\"r{n}\"}} 1\n");
    let page = "vllm:num_requests_running{model_name=\"x0\"} 1\n".to_owned() + &(0..2000).map(line).collect::<String>();
    let reading =
        translate(page.as_bytes(), Format::Text, None, "e", "").map(|reading| reading.points).unwrap_or_default();
    let sum: f64 = reading.iter().filter_map(Point::number).sum();
    assert!(reading.len() < 120 && (sum - 2001.0).abs() < 1e-9, "{} points, {sum} in all", reading.len());
}

#[test]
fn an_older_vllm_that_does_not_tell_its_capacity_has_no_unusable_lines() {
    check(
        "vllm:num_requests_running{model_name=\"m\"} 1\nvllm:cache_config_info{block_size=\"16\"} 1\n\
         vllm:cache_config_info{kv_cache_size_tokens=\"None\"} 1\n",
        expect![[r#"
            vllm ""
            requests_running m 1
        "#]],
    );
}

#[test]
fn tgi_names_no_model_and_its_cache_is_what_it_has_promised() {
    check(
        "tgi_batch_current_size 3\ntgi_queue_size 2\ntgi_batch_current_max_tokens 1500\ntgi_batch_max_total_tokens 6000\n\
         tgi_request_count 12\ntgi_request_success 9\ntgi_request_failure{err=\"overloaded\"} 2\n\
         tgi_request_failure{err=\"validation\"} 1\ntgi_request_failure{err=\"dropped\"} 4\ntgi_request_failure{err=\"new\"} 1\n\
         tgi_request_input_length_sum 700\ntgi_request_input_length_count 9\ntgi_request_input_length_bucket{le=\"+Inf\"} 9\n\
         tgi_batch_inference_count{method=\"prefill\"} 9\ntgi_batch_inference_count{method=\"decode\"} 300\n\
         tgi_batch_forward_duration_sum{method=\"prefill\"} 1.5\ntgi_batch_forward_duration_sum{method=\"decode\"} 8.25\n\
         tgi_request_skipped_tokens{quantile=\"0.5\"} 0\n",
        expect![[r#"
            tgi "3"
            requests_running  3
            requests_waiting  2
            kv_cache_usage_ratio  0.25
            kv_cache_capacity_tokens  6000
            prompt_tokens_total  700
            requests_finished_total  unspecified 9
            requests_finished_total  abort 4
            requests_finished_total  error 3
            requests_finished_total  other 1
            steps_total  309
            busy_seconds_total  decode 8.25
            busy_seconds_total  prefill 1.5
            request_prompt_tokens  9 in 1 buckets, 700
            of no use: tgi_request_count
            of no use: tgi_request_skipped_tokens
        "#]],
    );
    // An idle engine before its first batch.
    check(
        "tgi_batch_current_size 0\ntgi_queue_size 0\ntgi_batch_current_max_tokens 0\ntgi_batch_max_total_tokens 0\n",
        expect![[r#"
            tgi "3"
            requests_running  0
            requests_waiting  0
            kv_cache_capacity_tokens  0
        "#]],
    );
}

#[test]
fn trtllm_counts_its_cache_in_blocks_of_tokens() {
    check(
        "trtllm_num_requests_running{model_name=\"m\",engine_type=\"trt\"} 4\n\
         trtllm_num_requests_waiting{model_name=\"m\"} 1\ntrtllm_kv_cache_utilization{model_name=\"m\"} 0.25\n\
         trtllm_kv_cache_max_blocks{model_name=\"m\"} 1000\ntrtllm_kv_cache_tokens_per_block{model_name=\"m\"} 32\n\
         trtllm_prompt_tokens_total{model_name=\"m\"} 500\ntrtllm_prompt_cached_tokens_total{model_name=\"m\"} 120\n\
         trtllm_request_success_total{model_name=\"m\",finished_reason=\"stop\"} 7\n\
         trtllm_request_success_total{model_name=\"m\",finished_reason=\"cancelled\"} 1\n\
         trtllm_request_error_total{model_name=\"m\"} 2\n",
        expect![[r#"
            trtllm "1.2 or newer"
            requests_running m 4
            requests_waiting m 1
            kv_cache_usage_ratio m 0.25
            kv_cache_capacity_tokens m 32000
            prompt_tokens_total m 380
            prompt_tokens_cached_total m 120
            requests_finished_total m abort 1
            requests_finished_total m stop 7
            requests_finished_total m error 2
        "#]],
    );
}

#[test]
fn triton_tells_requests_and_blocks_by_a_label_of_one_metric() {
    check(
        "nv_trt_llm_request_metrics{model=\"m\",request_type=\"waiting\",version=\"1\"} 1\n\
         nv_trt_llm_request_metrics{model=\"m\",request_type=\"scheduled\",version=\"1\"} 5\n\
         nv_trt_llm_request_metrics{model=\"m\",request_type=\"active\",version=\"1\"} 6\n\
         nv_trt_llm_request_metrics{model=\"m\",request_type=\"max\",version=\"1\"} 512\n\
         nv_trt_llm_kv_cache_block_metrics{kv_cache_block_type=\"fraction\",model=\"m\",version=\"1\"} 0.5\n\
         nv_trt_llm_kv_cache_block_metrics{kv_cache_block_type=\"tokens_per\",model=\"m\",version=\"1\"} 64\n\
         nv_trt_llm_kv_cache_block_metrics{kv_cache_block_type=\"max\",model=\"m\",version=\"1\"} 6239\n\
         nv_inference_request_success{model=\"m\",version=\"1\"} 10\n\
         nv_inference_request_failure{model=\"m\",reason=\"OTHER\",version=\"1\"} 1\n\
         nv_inference_request_failure{model=\"m\",reason=\"CANCELED\",version=\"1\"} 0\n",
        expect![[r#"
            triton ""
            requests_running m 5
            requests_waiting m 1
            requests_max m 512
            kv_cache_usage_ratio m 0.5
            kv_cache_capacity_tokens m 399296
            requests_finished_total m unspecified 10
            requests_finished_total m error 1
        "#]],
    );
}

/// From its own metrics code (`tests/engine_pages.py`): an old name of vLLM's, names of an enumeration, outputs called iterations.
#[test]
fn a_page_that_lmdeploy_0_18_makes() {
    check(
        include_str!("../testdata/lmdeploy-0.18.0.txt"),
        expect![[r#"
            lmdeploy ""
            requests_running tiny-llama 4
            requests_waiting tiny-llama 3
            kv_cache_usage_ratio tiny-llama 0.375
            prompt_tokens_total tiny-llama 1350
            prompt_tokens_cached_total tiny-llama 450
            generation_tokens_total tiny-llama 6
            requests_finished_total tiny-llama abort 1
            requests_finished_total tiny-llama error 1
            requests_finished_total tiny-llama unspecified 1
            speculative_drafts_total tiny-llama 0
            speculative_draft_tokens_total tiny-llama 0
            speculative_accepted_tokens_total tiny-llama 0
            time_to_first_token_seconds tiny-llama 3 in 23 buckets, 1.0499999999999998
            inter_token_latency_seconds tiny-llama 2 in 21 buckets, 0.04
            request_duration_seconds tiny-llama 3 in 22 buckets, 9
            queue_time_seconds tiny-llama 3 in 22 buckets, 1.5
            prefill_time_seconds tiny-llama 3 in 22 buckets, 1.5
            request_prompt_tokens tiny-llama 3 in 11 buckets, 1800
            request_generation_tokens tiny-llama 3 in 11 buckets, 12
            decode_time_seconds tiny-llama 3 in 22 buckets, 6
            of no use: lmdeploy:backend_config_info
            of no use: lmdeploy:iteration_tokens_total
            of no use: lmdeploy:num_api_requests_routed
            of no use: lmdeploy:num_api_requests_waiting
            of no use: lmdeploy:num_requests_failed
            of no use: lmdeploy:num_requests_succeeded
            of no use: lmdeploy:prefix_cache_hit_rate
            of no use: lmdeploy:prompt_tokens_total
            of no use: lmdeploy:request_cache_hit_ratio
            of no use: lmdeploy:request_cached_tokens
            of no use: lmdeploy:request_inference_time_seconds
            of no use: lmdeploy:spec_decode_mean_accept_length
            of no use: lmdeploy:spec_decode_mean_accept_rate
            of no use: lmdeploy:time_per_output_token_seconds
            of no use: process_cpu_seconds_total
            of no use: process_max_fds
            of no use: process_open_fds
            of no use: process_resident_memory_bytes
            of no use: process_start_time_seconds
            of no use: process_virtual_memory_bytes
            of no use: python_gc_collections_total
            of no use: python_gc_objects_collected_total
            of no use: python_gc_objects_uncollectable_total
            of no use: python_info
        "#]],
    );
}

#[test]
fn what_dynamos_frontend_has_queued_is_in_flight_too() {
    check(
        "dynamo_frontend_inflight_requests{model=\"m\"} 7\ndynamo_frontend_queued_requests{model=\"m\"} 3\n\
         dynamo_frontend_requests_total{endpoint=\"chat_completions\",model=\"m\",request_type=\"stream\",status=\"success\"} 8\n\
         dynamo_frontend_requests_total{endpoint=\"completions\",model=\"m\",request_type=\"unary\",status=\"success\"} 1\n",
        expect![[r#"
            dynamo ""
            requests_running m 4
            requests_waiting m 3
            requests_finished_total m unspecified 9
        "#]],
    );
}

/// From its own frontend out of PyPI, before its own mocker: four streams and two other requests that ended well, one that its client gave
/// up, one for a model that nobody serves. One that was given up is in `status="error"` there.
#[test]
fn a_page_that_dynamo_1_6_1_gave() {
    let page = include_str!("../testdata/dynamo-1.6.1.txt");
    let unmapped = unmapped(page);
    let is_of_use = |line: &&str| !unmapped.iter().any(|name| line.starts_with(name.as_str()));
    check(
        &page.split_inclusive('\n').filter(is_of_use).collect::<String>(),
        expect![[r#"
        dynamo ""
        requests_running tiny-llama 0
        requests_running unknown_model 0
        requests_waiting tiny-llama 0
        requests_waiting unknown_model 0
        requests_finished_total tiny-llama unspecified 6
        requests_finished_total tiny-llama abort 1
        requests_finished_total unknown_model error 1
        time_to_first_token_seconds tiny-llama 2 in 19 buckets, 0.036769469
        inter_token_latency_seconds tiny-llama 58 in 21 buckets, 0.33313540399999997
        request_duration_seconds tiny-llama 7 in 11 buckets, 1.4074484040000002
        request_duration_seconds unknown_model 1 in 11 buckets, 0.000082542
        request_prompt_tokens tiny-llama 2 in 13 buckets, 32
        request_generation_tokens tiny-llama 6 in 11 buckets, 180
    "#]],
    );
}

#[test]
fn nim_has_no_prefix_and_ends_of_requests_under_another_name() {
    check(
        "num_requests_running{model_name=\"m\"} 1\nnum_requests_waiting{model_name=\"m\"} 0\nnum_request_max{model_name=\"m\"} 64\n\
         gpu_cache_usage_perc{model_name=\"m\"} 0.1\nrequest_success_total{model_name=\"m\"} 5\n\
         request_finish_total{model_name=\"m\",finished_reason=\"stop\"} 4\n\
         request_finish_total{model_name=\"m\",finished_reason=\"length\"} 1\n",
        expect![[r#"
            vllm "NIM"
            requests_running m 1
            requests_waiting m 0
            requests_max m 64
            kv_cache_usage_ratio m 0.1
            requests_finished_total m length 1
            requests_finished_total m stop 4
        "#]],
    );
}

#[test]
fn versions_of_vllm_are_told_by_their_names() {
    let running = "vllm:num_requests_running{model_name=\"m\"} 1\n";
    for (more, expect) in [
        ("vllm:num_requests_waiting_by_reason{model_name=\"m\",reason=\"capacity\"} 1\n", "0.32 or newer"),
        ("vllm:kv_cache_usage_perc{model_name=\"m\"} 0\n", "0.12 to 0.31"),
        (
            "vllm:kv_cache_usage_perc{model_name=\"m\"} 0\nvllm:gpu_cache_usage_perc{model_name=\"m\"} 0\n",
            "0.9 to 0.11",
        ),
        ("vllm:gpu_cache_usage_perc{model_name=\"m\"} 0\n", "before 0.9"),
        ("vllm:gpu_cache_usage_perc{model_name=\"m\"} 0\nvllm:num_requests_swapped{model_name=\"m\"} 0\n", "V0"),
        ("", ""),
    ] {
        let reading = translate((running.to_owned() + more).as_bytes(), Format::Text, None, "e", "");
        assert_eq!(reading.map(|reading| reading.version), Some(expect), "{more}");
    }
}
