#!/usr/bin/env python3
"""Calls CUDA's driver so and so often, and compares what the daemon's page says of it; then how much longer a decode loop takes for it.

usage: gpu_calls.py PAGE_URL [--libcuda PATH] [--rounds N] [--probes COMMAND...]

The daemon is at `cuda: {detail: full, budget_percent: 100}`. COMMAND is `plumbline probes cuda --config FILE`; without it no loop is timed.
With PyTorch, its launches are compared with its own profiler, and a communicator of one rank with NCCL's own log; without it they are not
run, and it says so. Needs no other package. Ends with 1 if something differs.
"""
import argparse
import ctypes
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from uuid import UUID

# An empty kernel for any GPU since Maxwell, which the driver compiles.
PTX = b".version 7.0\n.target sm_50\n.address_size 64\n.visible .entry nothing() { ret; }\n\0"

LAUNCHES = 10_000
IN_GRAPH = 20
GRAPH_LAUNCHES = 1_000
WAITS = 25
COPIES = 7
BYTES = 1 << 20

# The page is of samples that are five seconds apart.
PATIENCE_S = 30
SETTLED_S = 11


class Page:
    """The series of this process."""

    def __init__(self, url):
        self.url = url

    def read(self):
        return urllib.request.urlopen(self.url, timeout=10).read().decode()

    def own(self, name, **labels):
        """The sum of what is there with these labels; `None` if nothing is."""
        labels["pid"] = str(os.getpid())
        total = None
        for line in self.read().splitlines():
            found = re.match(r"([a-z_:]+)\{(.*)\} (\S+)$", line)
            if not found or found.group(1) != name:
                continue
            there = dict(re.findall(r'([A-Za-z_]+)="((?:[^"\\]|\\.)*)"', found.group(2)))
            if all(there.get(label) == value for label, value in labels.items()):
                total = (total or 0) + float(found.group(3))
        return total

    def wait(self, what, is_there):
        end = time.monotonic() + PATIENCE_S
        while not is_there(self.read()):
            if time.monotonic() > end:
                sys.exit(f"{what} did not come within {PATIENCE_S} s")
            time.sleep(0.2)


class Compared:
    def __init__(self):
        self.same = self.different = 0

    def check(self, what, expected, found):
        is_same = found == expected
        self.same += is_same
        self.different += not is_same
        print(f"{'same' if is_same else 'DIFFERS':8} {what}: called {expected}, counted {found}")

    def wait(self, what, expected, read):
        end = time.monotonic() + PATIENCE_S
        while (found := read()) != expected and time.monotonic() < end:
            time.sleep(0.5)
        self.check(what, expected, found)


class Driver:
    """What is used of cuda.h; a call that fails ends the script."""

    def __init__(self, path):
        self.library = ctypes.CDLL(path)

    def __getattr__(self, name):
        function = getattr(self.library, name)

        def call(*arguments):
            result = function(*arguments)
            if result != 0:
                sys.exit(f"{name} says {result}")

        return call


def handle():
    return ctypes.c_void_p()


class Work:
    """A context, an empty kernel, and a graph of it, on the first GPU."""

    def __init__(self, driver):
        self.driver = driver
        driver.cuInit(0)
        context, module, self.kernel, self.stream = handle(), handle(), handle(), handle()
        driver.cuCtxCreate_v2(ctypes.byref(context), 0, 0)
        driver.cuModuleLoadData(ctypes.byref(module), PTX)
        driver.cuModuleGetFunction(ctypes.byref(self.kernel), module, b"nothing")
        driver.cuStreamCreate(ctypes.byref(self.stream), 1)
        graph, self.graph = handle(), handle()
        driver.cuStreamBeginCapture_v2(self.stream, 1)
        for _ in range(IN_GRAPH):
            self.launch()
        driver.cuStreamEndCapture(self.stream, ctypes.byref(graph))
        driver.cuGraphInstantiateWithFlags(ctypes.byref(self.graph), graph, ctypes.c_ulonglong(0))

    def launch(self):
        self.driver.cuLaunchKernel(self.kernel, 1, 1, 1, 1, 1, 1, 0, self.stream, None, None)

    def step(self):
        """Of a decode loop: one graph, and its end."""
        self.driver.cuGraphLaunch(self.graph, self.stream)
        self.driver.cuStreamSynchronize(self.stream)


def count(page, compared, work):
    driver = work.driver
    for turn in range(LAUNCHES):
        work.launch()
        if turn % 500 == 0:
            driver.cuStreamSynchronize(work.stream)
    for _ in range(GRAPH_LAUNCHES):
        driver.cuGraphLaunch(work.graph, work.stream)
    for _ in range(WAITS):
        driver.cuStreamSynchronize(work.stream)
    memory, host = ctypes.c_uint64(), ctypes.create_string_buffer(BYTES)
    driver.cuMemAlloc_v2(ctypes.byref(memory), ctypes.c_size_t(3 * BYTES))
    for _ in range(COPIES):
        driver.cuMemcpyHtoD_v2(memory, host, ctypes.c_size_t(BYTES))
    calls = lambda call: lambda: page.own("plumbline_cuda_calls_total", device="0", call=call)
    compared.wait("launches", LAUNCHES + IN_GRAPH, calls("launch"))
    compared.wait("launches of graphs", GRAPH_LAUNCHES, calls("graph_launch"))
    waits = WAITS + (LAUNCHES + 499) // 500
    compared.wait("waits for a stream", waits, calls("stream_synchronize"))
    in_histogram = lambda: page.own("plumbline_cuda_wait_seconds_count", device="0", call="stream_synchronize")
    compared.wait("waits for a stream, by how long", waits, in_histogram)
    for call in ("capture_begin", "capture_end", "graph_instantiate", "allocate"):
        compared.wait(call, 1, calls(call))
    copied = lambda: page.own("plumbline_cuda_copied_bytes_total", device="0", direction="host_to_device")
    compared.wait("bytes copied", COPIES * BYTES, copied)
    live = lambda: page.own("plumbline_cuda_allocated_bytes", device="0")
    compared.wait("bytes allocated", 3 * BYTES, live)
    octets = ctypes.create_string_buffer(16)
    # Of CUDA 11.4 and later.
    newest = hasattr(driver.library, "cuDeviceGetUuid_v2")
    (driver.cuDeviceGetUuid_v2 if newest else driver.cuDeviceGetUuid)(octets, 0)
    uuid = str(UUID(bytes=octets.raw))
    told = lambda **labels: page.own("plumbline_cuda_device_info", device="0", source="driver", **labels) or 0
    # As NVML lists it, where the daemon asks NVML: an instance by its GPU, and its number.
    whole = lambda: told(UUID=uuid) + told(UUID=f"GPU-{uuid}")
    compared.wait(f"devices that are {uuid}", 1, lambda: whole() or told() - told(GPU_I_ID=""))
    driver.cuMemFree_v2(memory)
    compared.wait("bytes allocated after they were freed", 0, live)


def overhead(work, probes, rounds):
    """A loop of steps with and without probes, in turns; microseconds a step."""
    steps, details = 2_000, ("off", "sync", "full")
    times = {detail: [] for detail in details}
    # The command ends with `--config FILE`; what is wanted stands before that.
    position = probes.index("--config")
    for turn in range(rounds):
        for detail in details if turn % 2 == 0 else reversed(details):
            subprocess.run([*probes[:position], detail, *probes[position:]], check=True, stdout=subprocess.DEVNULL)
            # Until what is not wanted has been taken away, or what is wanted has been attached.
            time.sleep(SETTLED_S)
            begin = time.perf_counter()
            for _ in range(steps):
                work.step()
            times[detail].append((time.perf_counter() - begin) / steps * 1e6)
    base = statistics.median(times["off"])
    for detail in details:
        found = times[detail]
        print(
            f"decode loop, {detail}: {statistics.median(found):.2f} us a step"
            f" ({min(found):.2f} to {max(found):.2f}), x {statistics.median(found) / base:.4f}"
        )


def of_torch(page, compared):
    """PyTorch's launches beside its profiler, and its NCCL beside NCCL's log."""
    log = tempfile.NamedTemporaryFile(suffix=".nccl")
    os.environ.update(NCCL_DEBUG="INFO", NCCL_DEBUG_FILE=log.name)
    import torch
    from torch.profiler import ProfilerActivity, profile

    x = torch.randn(512, 512, device="cuda")
    launches = lambda: page.own("plumbline_cuda_calls_total", call="launch") or 0
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]):
        torch.relu(x @ x)
    torch.cuda.synchronize()
    time.sleep(SETTLED_S)
    before = launches()
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as profiler:
        for _ in range(500):
            x = torch.relu(x @ x) / 512
        torch.cuda.synchronize()
    names = ("cudaLaunchKernel", "cudaLaunchKernelExC", "cuLaunchKernel", "cuLaunchKernelEx", "cudaLaunchCooperativeKernel")
    expected = sum(event.name in names for event in profiler.events())
    compared.wait("launches of PyTorch, by its profiler", expected, lambda: launches() - before)

    import torch.distributed as dist

    with tempfile.NamedTemporaryFile() as store:
        dist.init_process_group("nccl", init_method=f"file://{store.name}", rank=0, world_size=1)
        for _ in range(37):
            dist.all_reduce(torch.ones(1024, device="cuda"))
        torch.cuda.synchronize()
        hashes = re.findall(r"commId (0x[0-9a-f]+)", open(log.name).read())
        own = dict(comm=hashes[-1] if hashes else "unknown", rank="0", function="all_reduce", captured="false")
        compared.wait("all-reduces of one rank", 37, lambda: page.own("plumbline_nccl_calls_total", **own))
        compared.wait("bytes of them", 37 * 4096, lambda: page.own("plumbline_nccl_bytes_total", **own))
        dist.destroy_process_group()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("page")
    parser.add_argument("--libcuda", default="libcuda.so.1")
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--probes", nargs=argparse.REMAINDER, default=[])
    arguments = parser.parse_args()
    page, compared = Page(arguments.page), Compared()
    driver = Driver(arguments.libcuda)
    page.wait("the probes", lambda text: re.search(r'plumbline_cuda_probed_functions\{library="[^"]*libcuda[^"]*"\} [1-9]', text))
    # The first sample of what probes cost.
    time.sleep(2)
    work = Work(driver)
    count(page, compared, work)
    try:
        import torch  # noqa: F401
    except ImportError as error:
        print(f"not run, because there is no PyTorch: its launches and NCCL ({error})")
    else:
        of_torch(page, compared)
    if arguments.probes:
        overhead(work, arguments.probes, arguments.rounds)
    else:
        print("not run, because there is no command for it: what the probes cost a decode loop")
    print(f"{compared.same} same, {compared.different} DIFFERS")
    sys.exit(compared.different > 0 or compared.same == 0)


if __name__ == "__main__":
    main()
