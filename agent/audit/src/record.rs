//! Records: an OCSF event becomes the exact bytes that are hashed, kept and shipped.
//!
//! A [`Draft`] is the event without its place in the log; sealing adds the chain fields and serializes once. Nobody
//! ever serializes a record again: verifiers hash the bytes they find and read only the [`Envelope`] of them.
//! The class of an event and all its other fields (times, boot, policy, build) are the caller's business.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::{Map, Value};

use crate::merkle::Hash;

/// No record is longer: the entry limit of C2SP tlog-tiles. What would be longer, the caller truncates and flags.
pub const MAX_RECORD_BYTES: usize = 65_535;

/// Deeper nesting than this is refused by JSON readers, ours among them (128), so it must never be sealed.
const MAX_DEPTH: usize = 100;

/// The class of OCSF "Event Log Activity", which loss records have.
const EVENT_LOG_ACTIVITY: u64 = 1008;

/// An OCSF event that can become a record: the objects that take the chain fields are there, and free of them.
#[derive(Clone, Debug, PartialEq)]
pub struct Draft(Map<String, Value>);

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum DraftError {
    #[error("`{field}` must be an object for the chain fields to be put into")]
    NotAnObject { field: &'static str },
    #[error("`{field}` is a chain field, which only sealing sets")]
    ChainField { field: &'static str },
    #[error("the event is nested deeper than {MAX_DEPTH} levels")]
    TooDeep,
}

#[derive(Debug, thiserror::Error)]
pub enum SealError {
    #[error("the record has {bytes} bytes, and {MAX_RECORD_BYTES} is the most a log keeps")]
    TooLarge { bytes: usize },
    #[error("cannot write the event as JSON")]
    Json(#[source] serde_json::Error),
}

impl Draft {
    pub fn new(mut event: Map<String, Value>) -> Result<Self, DraftError> {
        if event.values().any(|value| !within_depth(value, MAX_DEPTH)) {
            return Err(DraftError::TooDeep);
        }
        let metadata = object(&mut event, "metadata").ok_or(DraftError::NotAnObject { field: "metadata" })?;
        for (name, field) in
            [("sequence", "metadata.sequence"), ("log_name", "metadata.log_name"), ("uid", "metadata.uid")]
        {
            if metadata.contains_key(name) {
                return Err(DraftError::ChainField { field });
            }
        }
        let unmapped = object(&mut event, "unmapped").ok_or(DraftError::NotAnObject { field: "unmapped" })?;
        let ours = object(unmapped, "plumbline").ok_or(DraftError::NotAnObject { field: "unmapped.plumbline" })?;
        if ours.contains_key("prev") {
            return Err(DraftError::ChainField { field: "unmapped.plumbline.prev" });
        }
        Ok(Draft(event))
    }

    /// The bytes of this event as record `seq` of the log `origin`, after the record whose leaf hash is `prev`.
    ///
    /// The chain fields stay in the draft and are overwritten by the next call, so a draft that could not be written
    /// can be sealed again.
    pub fn seal(&mut self, origin: &str, seq: u64, prev: &Hash) -> Result<Vec<u8>, SealError> {
        let placed = "a draft holds the objects that take the chain fields";
        let metadata = object(&mut self.0, "metadata").expect(placed);
        metadata.insert("sequence".into(), seq.into());
        metadata.insert("log_name".into(), origin.into());
        metadata.insert("uid".into(), uid(origin, seq).into());
        let ours = object(&mut self.0, "unmapped").and_then(|unmapped| object(unmapped, "plumbline")).expect(placed);
        ours.insert("prev".into(), prev.to_string().into());
        let bytes = serde_json::to_vec(&self.0).map_err(SealError::Json)?;
        if bytes.len() > MAX_RECORD_BYTES {
            return Err(SealError::TooLarge { bytes: bytes.len() });
        }
        Ok(bytes)
    }
}

/// The object called `name`, created where nothing is; `None` where something else is.
fn object<'a>(parent: &'a mut Map<String, Value>, name: &str) -> Option<&'a mut Map<String, Value>> {
    if !parent.contains_key(name) {
        parent.insert(name.to_owned(), Value::Object(Map::new()));
    }
    parent.get_mut(name)?.as_object_mut()
}

fn within_depth(value: &Value, levels: usize) -> bool {
    match value {
        Value::Array(items) => levels > 0 && items.iter().all(|item| within_depth(item, levels - 1)),
        Value::Object(fields) => levels > 0 && fields.values().all(|field| within_depth(field, levels - 1)),
        _ => true,
    }
}

fn uid(origin: &str, seq: u64) -> String {
    format!("{origin}/{seq}")
}

/// The fields of a record that place it in the log.
#[derive(Debug, Deserialize)]
pub struct Envelope<'a> {
    /// A value of any type: what it is matters to loss counting alone.
    #[serde(default)]
    class_uid: Value,
    #[serde(borrow)]
    metadata: Metadata<'a>,
    #[serde(borrow)]
    unmapped: Unmapped<'a>,
}

#[derive(Debug, Deserialize)]
struct Metadata<'a> {
    sequence: u64,
    #[serde(borrow)]
    log_name: Cow<'a, str>,
    #[serde(borrow)]
    uid: Cow<'a, str>,
}

#[derive(Debug, Deserialize)]
struct Unmapped<'a> {
    #[serde(borrow)]
    plumbline: Ours<'a>,
}

#[derive(Debug, Deserialize)]
struct Ours<'a> {
    #[serde(borrow)]
    prev: Cow<'a, str>,
    #[serde(default)]
    kind: Value,
}

impl<'a> Envelope<'a> {
    /// Reads the chain fields and nothing else; the whole must be one JSON object and no more.
    pub fn parse(record: &'a [u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(record)
    }

    pub fn seq(&self) -> u64 {
        self.metadata.sequence
    }

    pub fn origin(&self) -> &str {
        &self.metadata.log_name
    }

    /// The uid as written; right if it is `<origin>/<seq>`.
    pub fn uid(&self) -> &str {
        &self.metadata.uid
    }

    pub fn uid_is_right(&self) -> bool {
        self.metadata.uid == uid(self.origin(), self.seq())
    }

    /// The leaf hash of the record before, as 64 hexadecimal digits.
    pub fn prev(&self) -> &str {
        &self.unmapped.plumbline.prev
    }

    /// Whether this record says that events were lost.
    pub fn declares_loss(&self) -> bool {
        self.class_uid == EVENT_LOG_ACTIVITY && self.unmapped.plumbline.kind == "loss"
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    const ORIGIN: &str = "log.example/a";

    fn draft(event: Value) -> Result<Draft, DraftError> {
        let Value::Object(event) = event else { panic!("an event is an object") };
        Draft::new(event)
    }

    #[test]
    fn sealing_adds_the_place_in_the_log_and_keeps_the_order_of_fields() {
        let event =
            json!({"class_uid": 1001, "metadata": {"version": "1.8.0"}, "unmapped": {"plumbline": {"boot_ns": 5}}});
        let sealed = draft(event).unwrap().seal(ORIGIN, 7, &Hash::ZERO).unwrap();
        let expect = concat!(
            r#"{"class_uid":1001,"metadata":{"version":"1.8.0","sequence":7,"log_name":"log.example/a","#,
            r#""uid":"log.example/a/7"},"unmapped":{"plumbline":{"boot_ns":5,"prev":""#,
            r#"0000000000000000000000000000000000000000000000000000000000000000"}}}"#
        );
        assert_eq!(String::from_utf8(sealed).unwrap(), expect);
    }

    #[test]
    fn a_draft_that_could_not_be_written_is_sealed_again_as_if_for_the_first_time() {
        let mut again = draft(json!({})).unwrap();
        again.seal(ORIGIN, 3, &Hash::from_bytes([9; 32])).unwrap();
        let fresh = draft(json!({})).unwrap().seal(ORIGIN, 4, &Hash::ZERO).unwrap();
        assert_eq!(again.seal(ORIGIN, 4, &Hash::ZERO).unwrap(), fresh);
    }

    #[test]
    fn drafts_that_cannot_take_the_chain_fields_are_refused() {
        #[track_caller]
        fn check(event: Value, expect: DraftError) {
            assert_eq!(draft(event), Err(expect));
        }
        check(json!({"metadata": 1}), DraftError::NotAnObject { field: "metadata" });
        check(json!({"unmapped": null}), DraftError::NotAnObject { field: "unmapped" });
        check(json!({"unmapped": {"plumbline": []}}), DraftError::NotAnObject { field: "unmapped.plumbline" });
        check(json!({"metadata": {"sequence": 1}}), DraftError::ChainField { field: "metadata.sequence" });
        check(json!({"metadata": {"uid": "x"}}), DraftError::ChainField { field: "metadata.uid" });
        check(
            json!({"unmapped": {"plumbline": {"prev": ""}}}),
            DraftError::ChainField { field: "unmapped.plumbline.prev" },
        );
        let deep = (0..MAX_DEPTH + 1).fold(json!(1), |inner, _| json!([inner]));
        check(json!({ "deep": deep }), DraftError::TooDeep);
    }

    #[test]
    fn a_record_of_exactly_the_limit_is_sealed_and_one_byte_more_is_not() {
        let empty = draft(json!({"message": ""})).unwrap().seal(ORIGIN, 0, &Hash::ZERO).unwrap().len();
        let with = |bytes: usize| draft(json!({"message": "x".repeat(bytes)})).unwrap().seal(ORIGIN, 0, &Hash::ZERO);
        assert_eq!(with(MAX_RECORD_BYTES - empty).unwrap().len(), MAX_RECORD_BYTES);
        let error = with(MAX_RECORD_BYTES - empty + 1).unwrap_err();
        assert_eq!(error.to_string(), "the record has 65536 bytes, and 65535 is the most a log keeps");
    }

    #[test]
    fn only_an_event_log_activity_of_kind_loss_declares_a_loss() {
        let declares = |class: u64, kind: &str| {
            let event = json!({"class_uid": class, "unmapped": {"plumbline": {"kind": kind}}});
            let bytes = draft(event).unwrap().seal(ORIGIN, 0, &Hash::ZERO).unwrap();
            Envelope::parse(&bytes).unwrap().declares_loss()
        };
        assert!(declares(1008, "loss"));
        assert!(!declares(1008, "start"));
        assert!(!declares(1001, "loss"));
    }

    pub(crate) fn any_event() -> impl Strategy<Value = Map<String, Value>> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            ".{0,20}".prop_map(Value::from),
        ];
        let value = leaf.prop_recursive(4, 20, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::vec((".{0,8}", inner), 0..4)
                    .prop_map(|fields| Value::Object(fields.into_iter().collect())),
            ]
        });
        let name = ".{0,8}"
            .prop_filter("free of the reserved names", |name| !["metadata", "unmapped"].contains(&name.as_str()));
        prop::collection::vec((name, value), 0..6).prop_map(|fields| fields.into_iter().collect())
    }

    proptest! {
        #[test]
        fn the_envelope_of_any_sealed_event_reads_back_and_it_is_one_line(event in any_event(), seq: u64, prev: [u8; 32]) {
            let prev = Hash::from_bytes(prev);
            let bytes = Draft::new(event).unwrap().seal("log.example/\"ö\"", seq, &prev).unwrap();
            let envelope = Envelope::parse(&bytes).unwrap();
            prop_assert_eq!((envelope.seq(), envelope.origin()), (seq, "log.example/\"ö\""));
            prop_assert!(envelope.uid_is_right());
            prop_assert_eq!(Hash::from_hex(envelope.prev()), Some(prev));
            prop_assert!(!bytes.contains(&b'\n'));
        }

        #[test]
        fn no_bytes_make_the_envelope_parser_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = Envelope::parse(&bytes);
        }
    }
}
