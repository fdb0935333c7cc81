#!/bin/sh
# Unattended: the whole daemon on a machine with a real GPU. Needs root, python3 with torch and transformers, curl.
# usage: gpu_node.sh PLUMBLINE OUT     writes what was seen into OUT
set -eu
here=$(cd "$(dirname "$0")" && pwd)
plumbline=$1
out=$2
state=$(mktemp -d)
mkdir -p /models "$out"
python3 "$here/gpu_engine.py" /models/tiny-llama 0 0 2>"$out/engine.log"
cat >"$state/config.yaml" <<YAML
state_dir: $state/state
listen: 127.0.0.1:9477
prices:
  currency: USD
  gpu_per_hour:
    - {gpu: "*H100*", price: 2.50}
    - {gpu: "*", price: 1.00}
engines:
  discover: false
  targets:
    - {name: tiny, url: "http://127.0.0.1:8000/metrics", dialect: vllm, interval: 1s}
YAML
"$plumbline" doctor --config "$state/config.yaml" >"$out/doctor.txt" || true
"$plumbline" run --config "$state/config.yaml" 2>"$out/daemon.log" &
daemon=$!
sleep 3
python3 "$here/gpu_engine.py" /models/tiny-llama 8000 30 2>>"$out/engine.log" &
engine=$!
sleep 25
curl -s http://127.0.0.1:9477/metrics >"$out/metrics-under-load.prom"
sleep 12
curl -s http://127.0.0.1:9477/metrics >"$out/metrics-idle.prom"
curl -s http://127.0.0.1:8000/metrics >"$out/engine.prom" || true
"$plumbline" status --listen 127.0.0.1:9477 >"$out/status.txt"
kill -TERM "$daemon"
wait "$daemon" || echo "the daemon ended with $?"
"$plumbline" audit cat "$state/state/log" >"$out/records.jsonl"
"$plumbline" audit verify "$state/state/log" --key "$state/state/node.vkey" | tee "$out/verify.txt"
wait "$engine" || true
