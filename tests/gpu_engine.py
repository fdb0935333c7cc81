#!/usr/bin/env python3
"""A small real engine for a machine with a GPU and no network: real weights from a safetensors file, real tokens on the
GPU, a page in vLLM's dialect. Not vLLM: names of the page are vLLM's, numbers are this program's own.

usage: gpu_engine.py WEIGHTS_DIR PORT SECONDS     needs: torch, transformers, safetensors
"""
import http.server
import sys
import threading
import time

import torch
from transformers import LlamaConfig, LlamaForCausalLM

directory, port, seconds = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
counts = {"prompt": 0, "generated": 0, "running": 0}

if seconds == 0:  # write weights and leave
    config = LlamaConfig(hidden_size=2048, intermediate_size=8192, num_hidden_layers=16, num_attention_heads=16, vocab_size=32000)
    LlamaForCausalLM(config).to(torch.bfloat16).save_pretrained(directory, max_shard_size="8GB")
    sys.exit()


class Page(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        label = '{engine="0",model_name="tiny-llama"}'
        body = "".join(
            f"# TYPE vllm:{name} {kind}\nvllm:{name}{label} {value}\n"
            for name, kind, value in [
                ("num_requests_running", "gauge", counts["running"]),
                ("num_requests_waiting", "gauge", 0),
                ("prompt_tokens_total", "counter", counts["prompt"]),
                ("prompt_tokens_cached_total", "counter", 0),
                ("generation_tokens_total", "counter", counts["generated"]),
            ]
        ).encode()
        self.send_response(200)
        self.send_header("Content-Type", "text/plain; version=0.0.4")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


server = http.server.ThreadingHTTPServer(("127.0.0.1", port), Page)
threading.Thread(target=server.serve_forever, daemon=True).start()
model = LlamaForCausalLM.from_pretrained(directory, dtype=torch.bfloat16).to("cuda")
batch, prompt, new = 32, 64, 64
deadline = time.time() + seconds
while time.time() < deadline:
    counts["running"] = batch
    tokens = torch.randint(0, 32000, (batch, prompt), device="cuda")
    counts["prompt"] += batch * prompt
    with torch.no_grad():
        model.generate(tokens, attention_mask=torch.ones_like(tokens), min_new_tokens=new, max_new_tokens=new, pad_token_id=0)
    torch.cuda.synchronize()
    counts["generated"] += batch * new
counts["running"] = 0
time.sleep(10)
