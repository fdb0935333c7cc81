"""Pages of engines that need a GPU to run, from the engines' own metrics code: names, types and labels are theirs, the numbers are
ours.

    python3 engine_pages.py sglang|lmdeploy DIR > page.txt

DIR holds the unpacked wheel (`pip download --no-deps sglang==0.5.23`, `lmdeploy==0.18.0`) and `prometheus_client`. What else the code imports is
stubbed: nothing of it touches a metric.
"""

import ast
import enum
import importlib.abc
import importlib.machinery
import importlib.util
import pathlib
import sys
import types
from unittest import mock

REAL = {
    "sglang": ("sglang.srt.observability.metrics_collector", "sglang.srt.observability.scheduler_stage_metrics",
               "sglang.srt.observability.utils", "sglang.srt.utils.gauge_histogram"),
    "lmdeploy": ("lmdeploy.metrics.loggers", "lmdeploy.metrics.stats"),
}


class Stubs(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Everything below one package that is not real."""

    def __init__(self, package, real):
        self.package, self.real = package, real

    def find_spec(self, name, path, target=None):
        is_ours = name in ("msgspec", "numpy") or name.split(".")[0] == self.package
        return importlib.machinery.ModuleSpec(name, self) if is_ours and name not in self.real else None

    def create_module(self, spec):
        module = Stub(spec.name)
        module.__path__ = []
        return module

    def exec_module(self, module):
        pass


class Stub(types.ModuleType):
    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return Struct if name == "Struct" else mock.MagicMock(name=name)


class Struct:
    def __init_subclass__(cls, **_options):
        pass


def load(package, directory):
    sys.path.insert(0, directory)
    sys.meta_path.insert(0, Stubs(package, REAL[package]))
    loaded = {}
    for name in sorted(REAL[package], key=len):
        path = pathlib.Path(directory, *name.split(".")).with_suffix(".py")
        spec = importlib.util.spec_from_file_location(name, path)
        loaded[name] = sys.modules[name] = importlib.util.module_from_spec(spec)
    for name in sorted(REAL[package], key=lambda name: "collector" in name or "loggers" in name):
        loaded[name].__spec__.loader.exec_module(loaded[name])
    return loaded


def without_help(page):
    """The descriptions are long, and none of ours."""
    return "".join(line for line in page.splitlines(keepends=True) if not line.startswith("# HELP"))


def sglang(directory):
    import prometheus_client

    collector = load("sglang", directory)["sglang.srt.observability.metrics_collector"]
    # What a server would be configured with: nothing, so that defaults count.
    collector.get_schedule = lambda: mock.MagicMock(
        prefill_delayer_max_delay_passes=30, prefill_delayer_forward_passes_buckets=None, prefill_delayer_wait_seconds_buckets=None
    )
    collector.get_observability = lambda: mock.MagicMock(prompt_tokens_buckets=None, generation_tokens_buckets=None)
    labels = {"model_name": "tiny-llama", "engine_type": "unified", "tp_rank": 0, "pp_rank": 0, "moe_ep_rank": 0, "priority": ""}
    scheduler = collector.SchedulerMetricsCollector(labels=labels, server_args=mock.MagicMock())
    for tp_rank in (0, 1):
        scheduler.labels = {**labels, "tp_rank": tp_rank}
        count = collector.QueueCount
        scheduler.log_stats(collector.SchedulerStats(
            num_running_reqs=count(total=5, by_priority={0: 3, 9: 2}), num_queue_reqs=count(total=2, by_priority={0: 2}),
            token_usage=0.75, full_token_usage=0.75, kv_used_tokens=750, kv_available_tokens=250, cache_hit_rate=0.25,
            gen_throughput=123.5, spec_accept_rate=0.5, spec_accept_length=2.5, num_retracted_reqs=1, utilization=0.625,
        ))
        scheduler.increment_retracted_reqs(3, 300, 30)
        scheduler.increment_realtime_tokens(None, 900, 300, 1200)
        scheduler.increment_effective_prefill_tokens(900, 200, 100, 0)
        scheduler.increment_forward_execution_seconds("extend", 1.5)
        scheduler.increment_forward_execution_seconds("decode", 6.25)
        scheduler.increment_scheduler_idle_seconds(12.5)
        scheduler.observe_queue_time(0.25)
        scheduler.max_total_num_tokens.labels(**scheduler.labels).set(1000)
    labels = {"model_name": "tiny-llama", "engine_type": "unified"}
    requests = collector.TokenizerMetricsCollector(labels=labels)
    for streaming in (True, False):
        requests.observe_one_finished_request(
            labels, prompt_tokens=600, generation_tokens=500, cached_tokens=150, e2e_latency=4.5, has_grammar=False,
            cached_tokens_details={"device": 100, "host": 50}, is_streaming=streaming, time_per_output_token=0.0085,
        )
        requests.observe_time_to_first_token(labels, 0.35, stream=streaming)
    requests.observe_inter_token_latency(labels, 0.02, 2)
    requests.observe_one_aborted_request(labels)
    return without_help(prometheus_client.generate_latest().decode())


def responses(directory):
    """LMDeploy's own enumeration, out of a file that imports much else."""
    source = ast.parse(pathlib.Path(directory, "lmdeploy/messages.py").read_text())
    wanted = [node for node in source.body if isinstance(node, ast.ClassDef) and node.name == "ResponseType"]
    scope = {"enum": enum}
    exec(compile(ast.Module(wanted, []), "messages.py", "exec"), scope)
    return scope["ResponseType"]


def lmdeploy(directory):
    import prometheus_client

    loaded = load("lmdeploy", directory)
    import lmdeploy.messages as messages

    messages.ResponseType = kinds = responses(directory)
    logger = loaded["lmdeploy.metrics.loggers"].PrometheusStatLogger("tiny-llama", 1024)
    stats = loaded["lmdeploy.metrics.stats"]
    stats.ResponseType = kinds
    scheduled = stats.SchedulerStats()
    scheduled.num_running_reqs, scheduled.num_waiting_reqs, scheduled.gpu_cache_usage = 4, 3, 0.375
    logger.record_schedule(scheduled)
    for prompt, new in ((600, 1), (600, 1), (600, 1), (0, 2), (0, 1)):
        iteration = stats.IterationStats()
        iteration.prompt_tokens, iteration.new_generation_tokens = prompt, new
        iteration.ttft, iteration.tpot, iteration.itl = (0.35, None, None) if prompt else (None, 0.02 / new, 0.02)
        logger.record_iteration(iteration)
    for reason in (kinds.FINISH, kinds.CANCEL, kinds.OUT_OF_MEMORY):
        request = stats.RequestStats(arrival_time=100.0, prompt_tokens=600)
        request.generation_tokens, request.cached_tokens, request.finish_reason = 4, 150, reason
        request.queued_time, request.scheduled_time, request.first_token_time, request.finish_time = 100.0, 100.5, 101.0, 103.0
        logger.record_finish(request)
    return without_help(prometheus_client.generate_latest().decode())


if __name__ == "__main__":
    engine, directory = sys.argv[1:]
    sys.path.insert(0, directory)
    sys.stdout.write({"sglang": sglang, "lmdeploy": lmdeploy}[engine](directory))
