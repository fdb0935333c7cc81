//! What engines measure, under the names of OpenTelemetry's conventions for generative AI as well (semantic-conventions-genai, "Metrics:
//! model server", in development): the engines' own buckets, and the attributes that are required there.
//!
//! `gen_ai.operation.name` is `inference`, a name of ours: an engine's histograms have chats, completions and embeddings in one.
//! `gen_ai.provider.name` is the engine's dialect. Token counts have no name there that a server may tell.

use std::collections::HashMap;

use opentelemetry_proto::tonic::common::v1::KeyValue;

use super::otlp::text;
use crate::series::{
    Point, Series,
    engine::{INFO, REQUEST_DURATION_SECONDS, TIME_PER_OUTPUT_TOKEN_SECONDS, TIME_TO_FIRST_TOKEN_SECONDS},
};

/// Series of engines that have a name there.
const NAMES: &[(&Series, &str)] = &[
    (&REQUEST_DURATION_SECONDS, "gen_ai.server.request.duration"),
    (&TIME_TO_FIRST_TOKEN_SECONDS, "gen_ai.server.time_to_first_token"),
    (&TIME_PER_OUTPUT_TOKEN_SECONDS, "gen_ai.server.time_per_output_token"),
];

/// The dialect of each engine, by its name.
#[derive(Debug, Default)]
pub(super) struct Providers(HashMap<String, String>);

impl Providers {
    /// From all present points.
    pub(super) fn of(points: &[Point]) -> Self {
        let infos = points.iter().filter(|point| *point.series == INFO);
        Self(
            infos
                .filter_map(|info| Some((label(info, "engine")?.to_owned(), label(info, "dialect")?.to_owned())))
                .collect(),
        )
    }

    /// `None` where nobody has told yet what the engine is.
    pub(super) fn attributes(&self, point: &Point) -> Option<Vec<KeyValue>> {
        let engine = label(point, "engine")?;
        let provider = self.0.get(engine)?;
        let mut attributes = vec![
            text("gen_ai.operation.name", "inference"),
            text("gen_ai.provider.name", provider),
            text("plumbline.engine", engine),
        ];
        attributes.extend(
            label(point, "model").filter(|model| !model.is_empty()).map(|model| text("gen_ai.request.model", model)),
        );
        Some(attributes)
    }
}

/// The series' name there.
pub(super) fn name(series: &Series) -> Option<&'static str> {
    NAMES.iter().find(|(known, _)| *known == series).map(|(_, name)| *name)
}

fn label<'p>(point: &'p Point, name: &str) -> Option<&'p str> {
    let at = point.series.labels.iter().position(|label| *label == name)?;
    point.labels.get(at).map(String::as_str)
}
