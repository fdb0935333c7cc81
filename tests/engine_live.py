"""What the daemon says of a live engine, beside the engine's own page, read by Prometheus' own parser in Python.

    python3 engine_live.py ENGINE_URL DAEMON_URL ENGINE_NAME

The engine must be idle, so that both pages tell the same. Needs `prometheus_client`. The map below is written by hand from the engines'
documentation and knows nothing of the daemon's tables. Prints one line for each series, and ends with 1 if one differs.
"""

import sys
import urllib.request

from prometheus_client.parser import text_string_to_metric_families

VLLM = {
    "requests_running": ("vllm:num_requests_running", {}),
    "requests_waiting": ("vllm:num_requests_waiting", {}),
    "kv_cache_usage_ratio": ("vllm:kv_cache_usage_perc", {}),
    "preemptions_total": ("vllm:num_preemptions_total", {}),
    "prompt_tokens_total": ("vllm:prompt_tokens_total", {}, "vllm:prompt_tokens_cached_total"),
    "prompt_tokens_cached_total": ("vllm:prompt_tokens_cached_total", {}),
    "generation_tokens_total": ("vllm:generation_tokens_total", {}),
    "prefix_cache_query_tokens_total": ("vllm:prefix_cache_queries_total", {}),
    "prefix_cache_hit_tokens_total": ("vllm:prefix_cache_hits_total", {}),
    "steps_total": ("vllm:iteration_tokens_total_count", {}),
    "step_tokens_total": ("vllm:iteration_tokens_total_sum", {}),
    "requests_finished_total:stop": ("vllm:request_success_total", {"finished_reason": "stop"}),
    "requests_finished_total:length": ("vllm:request_success_total", {"finished_reason": "length"}),
    "http_requests_total:2xx": ("http_requests_total", {"status": "2xx"}),
    "time_to_first_token_seconds_count": ("vllm:time_to_first_token_seconds_count", {}),
    "time_to_first_token_seconds_sum": ("vllm:time_to_first_token_seconds_sum", {}),
    "inter_token_latency_seconds_count": ("vllm:inter_token_latency_seconds_count", {}),
    "time_per_output_token_seconds_sum": ("vllm:request_time_per_output_token_seconds_sum", {}),
    "request_duration_seconds_sum": ("vllm:e2e_request_latency_seconds_sum", {}),
    "queue_time_seconds_sum": ("vllm:request_queue_time_seconds_sum", {}),
    "prefill_time_seconds_sum": ("vllm:request_prefill_time_seconds_sum", {}),
    "decode_time_seconds_sum": ("vllm:request_decode_time_seconds_sum", {}),
    "request_prompt_tokens_sum": ("vllm:request_prompt_tokens_sum", {}),
    "request_generation_tokens_sum": ("vllm:request_generation_tokens_sum", {}),
}

LLAMA = {
    "requests_running": ("llamacpp:requests_processing", {}),
    "requests_waiting": ("llamacpp:requests_deferred", {}),
    "prompt_tokens_total": ("llamacpp:prompt_tokens_total", {}),
    "prompt_tokens_cached_total": ("llamacpp:prompt_tokens_cached_total", {}),
    "generation_tokens_total": ("llamacpp:tokens_predicted_total", {}),
    "steps_total": ("llamacpp:n_decode_total", {}),
}


def samples(url):
    text = urllib.request.urlopen(url).read().decode()
    return [sample for family in text_string_to_metric_families(text) for sample in family.samples]


def total(page, name, labels):
    found = [s.value for s in page if s.name == name and all(s.labels.get(k) == v for k, v in labels.items())]
    return sum(found) if found else None


def main():
    engine, daemon, name = sys.argv[1:]
    page, said = samples(engine), samples(daemon)
    wanted = VLLM if any(s.name.startswith("vllm:") for s in page) else LLAMA
    # Our own question is counted by the engine as well.
    own = {"http_requests_total:2xx"}
    wrong = 0
    for series, (theirs, labels, *less) in wanted.items():
        expect = total(page, theirs, labels)
        for other in less:
            expect -= total(page, other, {}) or 0
        ours, _, value = series.partition(":")
        found = [
            s.value
            for s in said
            if s.name == "plumbline_engine_" + ours and s.labels["engine"] == name and (not value or value in s.labels.values())
        ]
        found = sum(found) if found else None
        near = found is not None and expect is not None and abs(found - expect) <= 1e-9 * max(1, abs(expect))
        good = near or found == expect or (series in own and found is not None and 0 <= expect - found <= 60)
        wrong += not good
        print(f"{'ok' if good else 'WRONG':<6} {series:<40} {theirs}{less or ''} = {expect}, ours {found}")
    print(f"{len(wanted) - wrong} right, {wrong} wrong")
    return wrong > 0


sys.exit(main())
