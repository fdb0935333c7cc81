//! Triton with its TensorRT-LLM backend: `tensorrtllm_backend/README.md`, "Triton metrics". It counts no tokens.

use super::{
    Command, Dialect, Field, METRICS, Own, Process,
    Source::{self, Product},
    When, only,
};
use crate::series::engine;

const REQUESTS: &str = "trt_llm_request_metrics";
const BLOCKS: &str = "trt_llm_kv_cache_block_metrics";
const KIND: &str = "kv_cache_block_type";

pub static DIALECT: Dialect = Dialect {
    name: "triton",
    about: "Triton with the TensorRT-LLM backend (`tensorrtllm_backend/README.md`)",
    prefixes: &["nv_"],
    mark: REQUESTS,
    versions: &[],
    model_labels: &["model"],
    rank_labels: &[],
    fields: &[
        Field::gauge(&engine::REQUESTS_RUNNING, &[Source::labelled(REQUESTS, "request_type", &["scheduled"])]),
        Field::gauge(&engine::REQUESTS_WAITING, &[Source::labelled(REQUESTS, "request_type", &["waiting"])]),
        Field::gauge(&engine::REQUESTS_MAX, &[Source::labelled(REQUESTS, "request_type", &["max"])]),
        Field::gauge(&engine::KV_CACHE_USAGE_RATIO, &[Source::labelled(BLOCKS, KIND, &["fraction"])]).greatest(),
        Field::gauge(
            &engine::KV_CACHE_CAPACITY_TOKENS,
            &[Product(only(BLOCKS, KIND, &["max"]), only(BLOCKS, KIND, &["tokens_per"]))],
        ),
        Field::new(&engine::REQUESTS_FINISHED_TOTAL, &[Source::metric("inference_request_success")], When::RequestDone)
            .own(Own::Fixed("unspecified")),
        Field::new(&engine::REQUESTS_FINISHED_TOTAL, &[Source::metric("inference_request_failure")], When::RequestDone)
            .own(Own::Fixed("error")),
    ],
    process: Process {
        commands: &[Command::Program("tritonserver")],
        port_options: &["--metrics-port"],
        socket_options: &[],
        default_port: 8002,
        path: METRICS,
        model_options: &[],
    },
};
