#!/bin/sh
# Unattended: the daemon on a machine with a real GPU and nvidia-smi, value by value, and what is called of CUDA call by call. Needs root and
# python3; with PyTorch its launches and NCCL are compared too.
# usage: gpu_e2e.sh PLUMBLINE OUT     keeps what was seen in OUT; ends with 1 if a value differs
set -eu
here=$(cd "$(dirname "$0")" && pwd)
plumbline=$1
out=$2
if ! command -v nvidia-smi >/dev/null || ! nvidia-smi -L >/dev/null 2>&1; then
    echo "not run, because nvidia-smi lists no GPU here"
    exit 77
fi
state=$(mktemp -d)
mkdir -p "$out"
cat >"$state/config.yaml" <<YAML
state_dir: $state/state
listen: 127.0.0.1:9477
engines: { discover: false }
# What costs too much is to be seen as well.
cuda: { detail: full, budget_percent: 100 }
incident: { token_file: $state/token }
YAML
(umask 077 && head -c 32 /dev/urandom | od -An -tx1 | tr -d ' \n' >"$state/token")
"$plumbline" doctor --config "$state/config.yaml" >"$out/doctor.txt" || true
"$plumbline" gpu --direct --config "$state/config.yaml" --all >"$out/gpu.txt"
"$plumbline" run --config "$state/config.yaml" 2>"$out/daemon.log" &
daemon=$!
trap 'kill -TERM "$daemon" 2>/dev/null || true' EXIT
# A full round, and GPM's second sample.
sleep 12
# Another daemon on the same port would be compared instead.
kill -0 "$daemon"
fields=$(python3 "$here/gpu_compare.py" --fields)
nvidia-smi --query-gpu="$fields" --format=csv,nounits >"$out/nvidia-smi.csv" || {
    # A driver that does not know a field refuses all of them: those that it knows, one by one.
    known=""
    for field in $(echo "$fields" | tr , ' '); do
        if nvidia-smi --query-gpu="$field" --format=csv,nounits >/dev/null 2>&1; then known="$known,$field"; fi
    done
    nvidia-smi --query-gpu="${known#,}" --format=csv,nounits >"$out/nvidia-smi.csv"
}
python3 - "$out/page.prom" <<'PY'
import sys, urllib.request
page = urllib.request.urlopen("http://127.0.0.1:9477/metrics", timeout=10).read()
open(sys.argv[1], "wb").write(page)
PY
nvidia-smi -q >"$out/nvidia-smi-q.txt"
"$plumbline" gpu --json --config "$state/config.yaml" >"$out/gpu.json"
"$plumbline" gpu release --config "$state/config.yaml" --why "gpu_e2e.sh"
"$plumbline" gpu resume --config "$state/config.yaml"
python3 "$here/gpu_compare.py" "$out/page.prom" "$out/nvidia-smi.csv" | tee "$out/compared.txt"
python3 "$here/gpu_calls.py" http://127.0.0.1:9477/metrics \
    --probes "$plumbline" probes cuda --config "$state/config.yaml" 2>&1 | tee "$out/calls.txt"
# The verdict of the comparisons, not of tee.
for compared in compared calls; do
    tail -1 "$out/$compared.txt" | grep -q '^[1-9][0-9]* same, 0 DIFFERS'
done
