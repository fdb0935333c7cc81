//! Records: an OCSF event becomes the exact bytes that are hashed, kept and shipped.
//!
//! A [`Draft`] is the event, serialized once, without its place in the log; sealing puts the chain fields into the two
//! places kept free for them. Nobody ever serializes a record again. A sealed record begins and ends in one known way
//! (`docs/audit-format.md`), so that a verifier compares bytes and reads JSON only where the log speaks of itself.
//! What an event means (times, boot, policy, build) is the caller's business.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::{Map, Value};

use crate::merkle::Hash;
use crate::statement::Statement;

/// No record is longer: the entry limit of C2SP tlog-tiles. What would be longer, the caller truncates and flags.
pub const MAX_RECORD_BYTES: usize = 65_535;

/// Deeper nesting than this is refused by JSON readers, ours among them (128), so it must never be sealed.
const MAX_DEPTH: usize = 100;

/// The class of OCSF "Event Log Activity": what the log says of itself, and what was lost.
pub const EVENT_LOG_ACTIVITY: u64 = 1008;
/// The class of OCSF "Application Lifecycle": when the agent watched.
pub const APPLICATION_LIFECYCLE: u64 = 6002;

/// How every record begins, up to its class.
const CLASS: &[u8] = br#"{"class_uid":"#;
/// How every record ends, after the 64 digits of the hash before it.
const END: &[u8] = br#""}}}"#;
const PREV: &[u8] = br#""prev":""#;

/// An OCSF event that can become a record: free of the chain fields, and serialized around the places that take them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Draft {
    class_uid: u64,
    /// From after `metadata.uid` to before `unmapped.plumbline.prev`.
    body: Vec<u8>,
}

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum DraftError {
    #[error("`class_uid` must be a positive integer")]
    Class,
    #[error("`{field}` must be an object for the chain fields to be put into")]
    NotAnObject { field: &'static str },
    #[error("`{field}` is a field that only the log sets")]
    ChainField { field: &'static str },
    #[error("a statement of the log belongs into a record of class {EVENT_LOG_ACTIVITY}")]
    StatementClass,
    #[error("the event is nested deeper than {MAX_DEPTH} levels")]
    TooDeep,
    #[error("cannot write the event as JSON: {0}")]
    Json(String),
}

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    #[error("the record has {bytes} bytes, and {MAX_RECORD_BYTES} is the most a log keeps")]
    TooLarge { bytes: usize },
}

impl Draft {
    pub fn new(event: Map<String, Value>) -> Result<Self, DraftError> {
        Self::build(event, None)
    }

    /// The event that carries a statement of the log.
    pub(crate) fn stating(event: Map<String, Value>, statement: &Statement) -> Result<Self, DraftError> {
        Self::build(event, Some(statement))
    }

    fn build(mut event: Map<String, Value>, statement: Option<&Statement>) -> Result<Self, DraftError> {
        if event.values().any(|value| !within_depth(value, MAX_DEPTH)) {
            return Err(DraftError::TooDeep);
        }
        let class_uid = event.shift_remove("class_uid").and_then(|class| class.as_u64()).filter(|class| *class > 0);
        let class_uid = class_uid.ok_or(DraftError::Class)?;
        if statement.is_some() && class_uid != EVENT_LOG_ACTIVITY {
            return Err(DraftError::StatementClass);
        }
        let metadata = take_object(&mut event, "metadata", "metadata")?;
        let mut unmapped = take_object(&mut event, "unmapped", "unmapped")?;
        let mut own = take_object(&mut unmapped, "plumbline", "unmapped.plumbline")?;
        for (object, name, field) in [
            (&metadata, "sequence", "metadata.sequence"),
            (&metadata, "log_name", "metadata.log_name"),
            (&metadata, "uid", "metadata.uid"),
            (&own, "statement", "unmapped.plumbline.statement"),
            (&own, "prev", "unmapped.plumbline.prev"),
        ] {
            if object.contains_key(name) {
                return Err(DraftError::ChainField { field });
            }
        }
        if let Some(statement) = statement {
            let statement = serde_json::to_value(statement).map_err(|error| DraftError::Json(error.to_string()))?;
            own.insert("statement".to_owned(), statement);
        }
        let mut body = Vec::with_capacity(1024);
        members(&metadata, &mut body, b",", b"")?;
        body.push(b'}');
        members(&event, &mut body, b",", b"")?;
        body.extend_from_slice(br#","unmapped":{"#);
        members(&unmapped, &mut body, b"", b",")?;
        body.extend_from_slice(br#""plumbline":{"#);
        members(&own, &mut body, b"", b",")?;
        Ok(Draft { class_uid, body })
    }

    /// The bytes of this event as record `seq` of the log `origin`, after the record whose leaf hash is `prev`.
    pub fn seal(&self, origin: &str, seq: u64, prev: &Hash) -> Result<Vec<u8>, SealError> {
        let mut bytes = Vec::new();
        self.seal_into(&mut bytes, &mut Place::new(origin), seq, prev)?;
        Ok(bytes)
    }

    /// The same, appended to `out`; on an error a part of it may be there.
    pub(crate) fn seal_into(
        &self,
        out: &mut Vec<u8>,
        place: &mut Place,
        seq: u64,
        prev: &Hash,
    ) -> Result<(), SealError> {
        let start = out.len();
        out.extend_from_slice(CLASS);
        decimal(self.class_uid, out);
        out.extend_from_slice(place.beginning(seq));
        out.extend_from_slice(&self.body);
        out.extend_from_slice(PREV);
        out.extend_from_slice(&prev.to_hex());
        out.extend_from_slice(END);
        let bytes = out.len() - start;
        if bytes > MAX_RECORD_BYTES { Err(SealError::TooLarge { bytes }) } else { Ok(()) }
    }
}

/// Takes the object called `name` out of its parent, empty where nothing is.
fn take_object(
    parent: &mut Map<String, Value>,
    name: &str,
    field: &'static str,
) -> Result<Map<String, Value>, DraftError> {
    match parent.shift_remove(name) {
        None => Ok(Map::new()),
        Some(Value::Object(object)) => Ok(object),
        Some(_) => Err(DraftError::NotAnObject { field }),
    }
}

/// The members of an object without its braces; `before` and `after` stand around them if there are any.
fn members(object: &Map<String, Value>, out: &mut Vec<u8>, before: &[u8], after: &[u8]) -> Result<(), DraftError> {
    if object.is_empty() {
        return Ok(());
    }
    let bytes = serde_json::to_vec(object).map_err(|error| DraftError::Json(error.to_string()))?;
    out.extend_from_slice(before);
    out.extend_from_slice(&bytes[1..bytes.len() - 1]);
    out.extend_from_slice(after);
    Ok(())
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

/// Appends a number as decimal digits. On the way of every record, where formatting would cost as much as its hash.
fn decimal(mut number: u64, out: &mut Vec<u8>) {
    let start = out.len();
    loop {
        out.push(b'0' + (number % 10) as u8);
        number /= 10;
        if number == 0 {
            break;
        }
    }
    out[start..].reverse();
}

/// The bytes that put a record in its place in one log.
#[derive(Debug)]
pub(crate) struct Place {
    /// The origin as it stands inside a JSON string.
    origin: String,
    buffer: Vec<u8>,
}

impl Place {
    pub(crate) fn new(origin: &str) -> Self {
        let quoted = Value::from(origin).to_string();
        Place { origin: quoted[1..quoted.len() - 1].to_owned(), buffer: Vec::new() }
    }

    /// What follows the class: `,"metadata":{"sequence":N,"log_name":"O","uid":"O/N"`.
    fn beginning(&mut self, seq: u64) -> &[u8] {
        let Place { origin, buffer } = self;
        buffer.clear();
        buffer.extend_from_slice(br#","metadata":{"sequence":"#);
        let start = buffer.len();
        decimal(seq, buffer);
        let digits = start..buffer.len();
        buffer.extend_from_slice(br#","log_name":""#);
        buffer.extend_from_slice(origin.as_bytes());
        buffer.extend_from_slice(br#"","uid":""#);
        buffer.extend_from_slice(origin.as_bytes());
        buffer.push(b'/');
        buffer.extend_from_within(digits);
        buffer.push(b'"');
        buffer
    }

    /// The class of `record` if it begins and ends as sealing writes record `seq` after the leaf hash `prev`.
    pub(crate) fn class_of(&mut self, record: &[u8], seq: u64, prev: &Hash) -> Option<u64> {
        let rest = record.strip_prefix(CLASS)?;
        let digits = rest.iter().take(20).take_while(|byte| byte.is_ascii_digit()).count();
        let (class, rest) = rest.split_at(digits);
        let rest = rest.strip_prefix(self.beginning(seq))?;
        if !matches!(rest.first(), Some(b',' | b'}')) {
            return None;
        }
        let rest = rest.strip_suffix(END)?.strip_suffix(&prev.to_hex())?;
        rest.strip_suffix(PREV)?;
        str::from_utf8(class).ok()?.parse().ok()
    }
}

/// The fields of a record that place it in the log, and what the log states in it.
#[derive(Debug, Deserialize)]
pub struct Envelope<'a> {
    /// A value of any type: what it is matters to loss counting alone.
    #[serde(default)]
    class_uid: Value,
    /// OCSF `time`, milliseconds since 1970.
    #[serde(default)]
    time: Value,
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
    #[serde(default)]
    statement: Option<Statement>,
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

    pub fn class_uid(&self) -> Option<u64> {
        self.class_uid.as_u64()
    }

    /// OCSF `time`, milliseconds since 1970.
    pub fn time_ms(&self) -> Option<u64> {
        self.time.as_u64()
    }

    /// `unmapped.plumbline.kind`.
    pub fn kind(&self) -> Option<&str> {
        self.unmapped.plumbline.kind.as_str()
    }

    pub fn statement(&self) -> Option<&Statement> {
        self.unmapped.plumbline.statement.as_ref().filter(|_| self.class_uid == EVENT_LOG_ACTIVITY)
    }

    /// Whether this record says that events were lost, or may have been.
    pub fn declares_gap(&self) -> bool {
        self.class_uid == EVENT_LOG_ACTIVITY
            && (self.kind() == Some("loss") || matches!(self.statement(), Some(Statement::Recovered(_))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    const ORIGIN: &str = "log.example/a";

    fn draft(event: Value) -> Result<Draft, DraftError> {
        let Value::Object(mut event) = event else { panic!("an event is an object") };
        event.entry("class_uid").or_insert(1001.into());
        Draft::new(event)
    }

    #[test]
    fn sealing_puts_the_place_in_the_log_around_the_event() {
        let event = json!({
            "time": 7, "class_uid": 1001, "metadata": {"version": "1.8.0"}, "message": "m",
            "unmapped": {"plumbline": {"boot_ns": 5}, "more": true},
        });
        let sealed = draft(event).unwrap().seal(ORIGIN, 7, &Hash::ZERO).unwrap();
        let expect = concat!(
            r#"{"class_uid":1001,"metadata":{"sequence":7,"log_name":"log.example/a","uid":"log.example/a/7","#,
            r#""version":"1.8.0"},"time":7,"message":"m","unmapped":{"more":true,"plumbline":{"boot_ns":5,"prev":""#,
            r#"0000000000000000000000000000000000000000000000000000000000000000"}}}"#
        );
        assert_eq!(String::from_utf8(sealed).unwrap(), expect);
    }

    #[test]
    fn an_event_with_nothing_but_its_class_is_sealed_too() {
        let sealed = draft(json!({})).unwrap().seal(ORIGIN, 0, &Hash::ZERO).unwrap();
        assert!(sealed.starts_with(br#"{"class_uid":1001,"metadata":{"sequence":0,"log_name":"log.example/a","uid":"log.example/a/0"},"unmapped":{"plumbline":{"prev":"0"#));
    }

    #[test]
    fn a_record_in_any_other_place_than_its_own_is_not_sealed_as_it_should_be() {
        let prev = Hash::from_bytes([9; 32]);
        let sealed = draft(json!({})).unwrap().seal(ORIGIN, 12, &prev).unwrap();
        let class = |record: &[u8], origin: &str, seq, prev: &Hash| Place::new(origin).class_of(record, seq, prev);
        assert_eq!(class(&sealed, ORIGIN, 12, &prev), Some(1001));
        assert_eq!(class(&sealed, ORIGIN, 1, &prev), None);
        assert_eq!(class(&sealed, ORIGIN, 123, &prev), None);
        assert_eq!(class(&sealed, ORIGIN, 12, &Hash::ZERO), None);
        assert_eq!(class(&sealed, "log.example/b", 12, &prev), None);
        for at in 0..80 {
            let mut bad = sealed.clone();
            bad[at] = b'#';
            assert_eq!(class(&bad, ORIGIN, 12, &prev), None, "byte {at}");
        }
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
        check(
            json!({"class_uid": 1008, "unmapped": {"plumbline": {"statement": {}}}}),
            DraftError::ChainField { field: "unmapped.plumbline.statement" },
        );
        check(json!({"class_uid": "1001"}), DraftError::Class);
        check(json!({"class_uid": 0}), DraftError::Class);
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
    fn an_event_log_activity_of_kind_loss_declares_a_gap_and_no_other_event_does() {
        let declares = |class: u64, kind: &str| {
            let event = json!({"class_uid": class, "unmapped": {"plumbline": {"kind": kind}}});
            let bytes = draft(event).unwrap().seal(ORIGIN, 0, &Hash::ZERO).unwrap();
            Envelope::parse(&bytes).unwrap().declares_gap()
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
        let name = ".{0,8}".prop_filter("free of the reserved names", |name| {
            !["metadata", "unmapped", "class_uid"].contains(&name.as_str())
        });
        prop::collection::vec((name, value), 0..6)
            .prop_map(|fields| fields.into_iter().chain([("class_uid".to_owned(), 1001.into())]).collect())
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
            prop_assert_eq!(Place::new("log.example/\"ö\"").class_of(&bytes, seq, &prev), Some(1001));
            prop_assert!(!bytes.contains(&b'\n'));
        }

        #[test]
        fn no_bytes_make_the_envelope_parser_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = Envelope::parse(&bytes);
            let _ = Place::new("o").class_of(&bytes, 0, &Hash::ZERO);
        }
    }
}
