#!/usr/bin/env python3
"""Compares a page of metrics with what nvidia-smi said at the same time, value by value.

usage: gpu_compare.py PAGE SMI_CSV

SMI_CSV is the output of `nvidia-smi --query-gpu=FIELDS --format=csv,nounits` with FIELDS of `gpu_compare.py --fields`.
Prints a table; ends with 1 if a value differs by more than it may change between two readings, or if nothing was compared.
"""
import csv
import re
import sys

MEBI = 1024 * 1024

# Field of nvidia-smi: series, its own labels, factor, and how far apart the two may be (absolute, relative): what changes by
# itself between two readings may differ, what does not may not.
FIELDS = {
    "memory.total": ("memory_total_bytes", {}, MEBI, (MEBI, 0)),
    "memory.reserved": ("memory_reserved_bytes", {}, MEBI, (MEBI, 0)),
    "memory.used": ("memory_used_bytes", {}, MEBI, (64 * MEBI, 0.05)),
    "temperature.gpu": ("temperature_celsius", {"sensor": "gpu"}, 1, (5, 0)),
    "temperature.memory": ("temperature_celsius", {"sensor": "memory"}, 1, (5, 0)),
    "power.draw": ("power_watts", {}, 1, (25, 0.25)),
    "power.draw.average": ("power_average_watts", {}, 1, (25, 0.25)),
    "power.draw.instant": ("power_instant_watts", {}, 1, (50, 0.5)),
    "enforced.power.limit": ("power_limit_watts", {}, 1, (0.01, 0)),
    "clocks.sm": ("clock_hertz", {"clock": "sm"}, 1e6, (300e6, 0.3)),
    "clocks.mem": ("clock_hertz", {"clock": "memory"}, 1e6, (1, 0)),
    "clocks.video": ("clock_hertz", {"clock": "video"}, 1e6, (300e6, 0.3)),
    "clocks.max.sm": ("clock_max_hertz", {"clock": "sm"}, 1e6, (1, 0)),
    "clocks.max.memory": ("clock_max_hertz", {"clock": "memory"}, 1e6, (1, 0)),
    "clocks.applications.graphics": ("clock_application_hertz", {"clock": "sm"}, 1e6, (1, 0)),
    "clocks.applications.memory": ("clock_application_hertz", {"clock": "memory"}, 1e6, (1, 0)),
    "utilization.gpu": ("utilization_ratio", {}, 0.01, (0.5, 0)),
    "utilization.memory": ("memory_utilization_ratio", {}, 0.01, (0.5, 0)),
    "utilization.encoder": ("video_utilization_ratio", {"unit": "encoder"}, 0.01, (0.2, 0)),
    "utilization.decoder": ("video_utilization_ratio", {"unit": "decoder"}, 0.01, (0.2, 0)),
    "pcie.link.gen.gpucurrent": ("pcie_link_generation", {}, 1, (4, 0)),
    "pcie.link.gen.max": ("pcie_link_generation_max", {}, 1, (0, 0)),
    "pcie.link.width.current": ("pcie_link_width", {}, 1, (0, 0)),
    "pcie.link.width.max": ("pcie_link_width_max", {}, 1, (0, 0)),
    "ecc.errors.corrected.volatile.total": ("memory_errors_total", {"kind": "corrected"}, 1, (0, 0)),
    "ecc.errors.uncorrected.volatile.total": ("memory_errors_total", {"kind": "uncorrected"}, 1, (0, 0)),
    "ecc.errors.corrected.aggregate.total": ("memory_errors_ever_total", {"kind": "corrected"}, 1, (0, 0)),
    "ecc.errors.uncorrected.aggregate.total": ("memory_errors_ever_total", {"kind": "uncorrected"}, 1, (0, 0)),
}
# Performance state and identity are words.
WORDS = {"pstate": None, "name": "name", "driver_version": "driver", "vbios_version": "vbios", "serial": "serial"}
QUERY = ["uuid", *WORDS, *FIELDS]
UNKNOWN = {"[N/A]", "N/A", "[Not Supported]", "[Unknown Error]", "0 [Unknown]", ""}

SAMPLE = re.compile(r"^plumbline_gpu_([a-z_0-9]+)\{(.*)\} (\S+)$")
LABEL = re.compile(r'([A-Za-z_]+)="((?:[^"\\]|\\.)*)"')


def samples(page):
    for line in page.splitlines():
        if found := SAMPLE.match(line):
            yield found[1], dict(LABEL.findall(found[2])), float(found[3])


def compare(page, text):
    """Rows of (uuid, field, nvidia-smi, page, verdict)."""
    told = list(samples(page))
    rows = list(csv.reader(text.splitlines(), skipinitialspace=True))
    names = [name.split(" [")[0] for name in rows[0]]
    for row in rows[1:]:
        smi = dict(zip(names, row, strict=True))
        of_gpu = [(name, labels, number) for name, labels, number in told if labels.get("UUID") == smi["uuid"]]
        info = next((labels for name, labels, _ in of_gpu if name == "info"), None)
        if info is None:
            yield smi["uuid"], "uuid", smi["uuid"], "absent", "DIFFERS"
            continue
        for field, label in WORDS.items():
            if field not in smi or smi[field] in UNKNOWN:
                continue
            if field == "pstate":
                state = next((number for name, _, number in of_gpu if name == "performance_state"), None)
                ours = "absent" if state is None else f"P{state:.0f}"
            else:
                ours = info.get(label, "absent")
            yield smi["uuid"], field, smi[field], ours, "same" if ours == smi[field] else "DIFFERS"
        for field, (series, wanted, factor, (absolute, relative)) in FIELDS.items():
            if field not in smi:
                continue
            ours = [n for name, labels, n in of_gpu if name == series and wanted.items() <= labels.items()]
            if smi[field] in UNKNOWN:
                # What nvidia-smi does not know may still be known by another call.
                yield smi["uuid"], field, smi[field], ours[0] if ours else "absent", "unknown to nvidia-smi"
                continue
            theirs = float(smi[field]) * factor
            if not ours:
                yield smi["uuid"], field, theirs, "absent", "DIFFERS"
                continue
            near = abs(ours[0] - theirs) <= max(absolute, relative * abs(theirs))
            yield smi["uuid"], field, theirs, ours[0], "same" if near else "DIFFERS"


def main(arguments):
    if arguments == ["--fields"]:
        print(",".join(QUERY))
        return 0
    if len(arguments) != 2:
        print(__doc__, file=sys.stderr)
        return 2
    page, text = (open(path, encoding="utf-8").read() for path in arguments)
    rows = list(compare(page, text))
    for row in rows:
        print("{}  {:<40} {!s:>24} {!s:>24}  {}".format(*row))
    count = {verdict: sum(row[4] == verdict for row in rows) for verdict in ("same", "DIFFERS", "unknown to nvidia-smi")}
    print(", ".join(f"{number} {verdict}" for verdict, number in count.items()))
    return 0 if count["same"] and not count["DIFFERS"] else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
