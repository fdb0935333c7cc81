//! What both OTLP signals say about themselves.
//!
//! The messages are those of the crate `opentelemetry-proto`, filled by us. The SDK's instruments can carry neither a
//! histogram with an engine's own buckets nor a log record's exact bytes from a cursor.

use opentelemetry_proto::tonic::{
    common::v1::{AnyValue, InstrumentationScope, KeyValue, any_value::Value},
    resource::v1::Resource,
};

pub(super) fn attribute(key: &str, value: Value) -> KeyValue {
    KeyValue { key: key.to_owned(), value: Some(AnyValue { value: Some(value) }), ..KeyValue::default() }
}

pub(super) fn text(key: &str, value: &str) -> KeyValue {
    attribute(key, Value::StringValue(value.to_owned()))
}

/// Who speaks: this daemon on this node.
pub(super) fn resource(node: &str) -> Resource {
    let attributes = vec![
        text("service.name", "plumbline"),
        text("service.version", env!("CARGO_PKG_VERSION")),
        text("host.name", node),
    ];
    Resource { attributes, ..Resource::default() }
}

pub(super) fn scope() -> InstrumentationScope {
    InstrumentationScope {
        name: "plumbline".to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        ..InstrumentationScope::default()
    }
}
