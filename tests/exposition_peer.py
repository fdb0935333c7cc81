"""Pages that nobody wrote, read by Prometheus' own parser in Python (`prometheus_client`) and by the program given: both must tell the
same samples.

    python3 exposition_peer.py PARSER [PAGES] [SEED]

PARSER, with arguments, reads one page from standard input and writes one JSON line for each sample: `[name, {label: value}, value, timestamp in ms]`.
Pages are of the text format 0.0.4, with names with colons, labels in any order, every escape, blanks where they may be, all spellings
of numbers, comments, and lines without an end. No name is declared a counter: the peer would give it another name. The peer refuses some pages whole; those are counted and must be few.
"""

import json
import math
import random
import shlex
import subprocess
import sys

from prometheus_client.parser import text_string_to_metric_families

NAMES = ["vllm:num_requests", "a", "_x", "up", "sglang:x_total", "llamacpp:n_bucket", "A:b:c", "h_sum", "n_created", "z9"]
LABELS = ["le", "model_name", "engine", "a", "_b", "quantile", "X1"]
VALUES = ["", "0", "+Inf", "tiny-llama", 'a"b', "a\\b", "a\nb", "}", "{", ",", "=", "# x", "ü😀", " ", "\\n", "a\\", "x" * 300]
NUMBERS = ["0", "1", "-1", "1.5", "1e3", "1E-7", "+2", "NaN", "nan", "+Inf", "-Inf", "Inf", "0.1", ".5", "5.", "1e+00", "9007199254740993", "1e308", "4.9e-324"]


def escape(text):
    return text.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')


def line(draw):
    kind = draw.random()
    blank = lambda most=2: " " * draw.randrange(most)
    if kind < 0.08:
        return draw.choice(["", "#", "# a comment", "   ", "#no"])
    name = draw.choice(NAMES)
    if kind < 0.14:
        return f"# TYPE {name} {draw.choice(['gauge', 'untyped'])}"
    if kind < 0.18:
        return f"# HELP {name} {escape(draw.choice(VALUES))}"
    labels = draw.sample(LABELS, draw.randrange(4))
    inner = ",".join(f'{label}="{escape(draw.choice(VALUES))}"' for label in labels)
    if labels and draw.random() < 0.3:
        inner += ","
    braces = f"{{{inner}}}" if labels or draw.random() < 0.2 else ""
    number = draw.choice(NUMBERS) if draw.random() < 0.5 else repr(draw.uniform(-1e6, 1e6))
    stamp = f" {draw.randrange(10**13)}" if draw.random() < 0.2 else ""
    return f"{name}{braces} {blank()}{number}{stamp}{blank()}"


def page(draw):
    text = "\n".join(line(draw) for _ in range(draw.randrange(12)))
    return text + ("\n" if draw.random() < 0.9 else "")


def theirs(text):
    found = []
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            stamp = None if sample.timestamp is None else round(float(sample.timestamp) * 1000)
            found.append((sample.name, tuple(sorted(sample.labels.items())), number(sample.value), stamp))
    return found


def number(value):
    return "nan" if math.isnan(value) else float(value)


def ours(parser, text):
    output = subprocess.run(shlex.split(parser), input=text.encode(), stdout=subprocess.PIPE, check=True).stdout
    samples = []
    for row in output.decode().splitlines():
        name, labels, value, stamp = json.loads(row)
        samples.append((name, tuple(sorted(labels.items())), number(float(value)), stamp))
    return samples


def main():
    parser, count, seed = sys.argv[1], int((sys.argv[2:] or ["300"])[0]), int((sys.argv[3:] or ["1"])[0])
    draw = random.Random(seed)
    refused = compared = 0
    for at in range(count):
        text = page(draw)
        try:
            expect = theirs(text)
        except ValueError as error:
            refused += 1
            print(f"# page {at}: the peer refuses it: {error}"[:200])
            continue
        compared += len(expect)
        found = ours(parser, text)
        # The peer groups samples by family; order between families is not told.
        if sorted(map(repr, found)) != sorted(map(repr, expect)):
            print(f"page {at} of seed {seed} differs:\n{text!r}\nours   {found}\ntheirs {expect}")
            return 1
    print(f"{count} pages, {compared} samples are the same, {refused} pages refused by the peer")
    return int(refused > count // 10 or compared < count)


sys.exit(main())
