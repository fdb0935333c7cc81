//! The shapes of the language → a JSON Schema for editors, and the page that describes every field.

use std::fmt::Write as _;

use serde_json::{Map, Value, json};

use crate::destination::NAME;
use crate::object::{KINDS, finding::FINDINGS};
use crate::parse::DOCUMENTS;
use crate::shape::{Field, Holds, Shape, Words};
use crate::template::Placeholder;

/// JSON Schema draft 7, which editors know. It knows the fields, their types and their words; what only the checker knows
/// (globs that parse, networks without host bits, rules that can match) it lets through.
pub fn json_schema() -> String {
    let [(_, policy), (lists, lists_shape), (exceptions, exceptions_shape)] = DOCUMENTS;
    let kind = |kind: &str| json!({ "properties": { "kind": { "const": kind } }, "required": ["kind"] });
    let schema = json!({
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "Plumbline policy",
        "type": "object",
        "if": kind(lists),
        "then": mapping(lists_shape),
        "else": { "if": kind(exceptions), "then": mapping(exceptions_shape), "else": mapping(policy) },
    });
    format!("{schema:#}\n")
}

/// A value instead of which the name of a list may stand.
const REFERENCE: &str = r"^\$[a-z0-9-]+$";

fn mapping(shape: &Shape) -> Value {
    let properties: Map<String, Value> = shape.fields().map(|field| (field.name.to_owned(), property(field))).collect();
    let required: Vec<&str> = shape.fields().filter(|field| field.is_required).map(|field| field.name).collect();
    let mut schema = json!({ "type": "object", "additionalProperties": false, "properties": properties });
    if !required.is_empty() {
        schema["required"] = required.into();
    }
    schema
}

fn property(field: &Field) -> Value {
    let mut schema = holds(field.holds);
    schema["description"] = field.about.into();
    schema
}

fn holds(holds: Holds) -> Value {
    let text = || json!({ "type": "string", "minLength": 1 });
    let many = |one: &Value| json!({ "type": "array", "minItems": 1, "items": one });
    let one_or_many = |one: Value| json!({ "anyOf": [one, many(&one)] });
    let or_list = |one: Value| json!({ "anyOf": [one, { "type": "string", "pattern": REFERENCE }] });
    let integer = |least: u64, most: u64| json!({ "type": "integer", "minimum": least, "maximum": most });
    match holds {
        Holds::Text => text(),
        Holds::Name => json!({ "type": "string", "pattern": "^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$" }),
        Holds::Bool => json!({ "type": "boolean" }),
        Holds::Duration => json!({ "type": "string", "pattern": "^[0-9]+[smhd]$" }),
        Holds::Integer(least, most) => integer(least, most),
        Holds::Integers(least, most) => one_or_many(or_list(integer(least, most))),
        Holds::Ports => one_or_many(
            json!({ "anyOf": [integer(0, 65_535), { "type": "string", "pattern": r"^(\$[a-z0-9-]+|[0-9]+ *- *[0-9]+)$" }] }),
        ),
        Holds::Texts => one_or_many(text()),
        Holds::TextList => json!({ "anyOf": [many(&text()), { "type": "string", "pattern": REFERENCE }] }),
        Holds::Word(words) => json!({ "enum": words() }),
        Holds::Words(words) => one_or_many(or_list(json!({ "enum": words() }))),
        Holds::Labels => {
            json!({ "type": "object", "minProperties": 1, "additionalProperties": one_or_many(json!({ "type": "string" })) })
        }
        Holds::Lists => json!({ "type": "object", "additionalProperties": { "type": "array", "minItems": 1 } }),
        Holds::Destinations => one_or_many(json!({ "anyOf": [text(), exactly_one(&NAME)] })),
        Holds::One(shape) => mapping(shape),
        Holds::ExactlyOne(shape) => exactly_one(shape),
        Holds::Many(shape) => {
            let mut schema = many(&mapping(shape));
            if std::ptr::eq(shape, &raw const crate::exceptions::ENTRY) {
                schema["minItems"] = 0.into();
            }
            schema
        }
        Holds::OneOrMany(shape) => one_or_many(mapping(shape)),
        Holds::TextListOr(shape) => {
            json!({ "anyOf": [many(&text()), { "type": "string", "pattern": REFERENCE }, mapping(shape)] })
        }
    }
}

fn exactly_one(shape: &Shape) -> Value {
    let mut schema = mapping(shape);
    schema["minProperties"] = 1.into();
    schema["maxProperties"] = 1.into();
    schema
}

/// `docs/policy-reference.md`.
pub fn reference() -> String {
    let mut page = String::from(
        "# Policies, field by field\n\nGenerated from the tables that the reader itself uses; `UPDATE_EXPECT=1 cargo test -p \
         plumbline-policy reference_page` writes it anew. What a policy is for and how a verdict comes about is in \
         [policies.md](policies.md).\n",
    );
    for (kind, shape) in DOCUMENTS {
        let _ = write!(page, "\n## `kind: {kind}`\n");
        let mut sections = Vec::new();
        collect("", shape, &mut sections);
        for (path, shape) in sections {
            section(&mut page, &path, shape);
        }
    }
    page.push_str("\n## Destinations\n");
    section(&mut page, "to, notTo", &NAME);
    page.push_str("\n## Placeholders of messages, and of `throttle.by`\n\n");
    let words = |placeholders: &[Placeholder]| {
        placeholders.iter().map(|one| format!("`{{{}}}`", one.word())).collect::<Vec<_>>().join(", ")
    };
    let _ = writeln!(page, "| rules that match | placeholders |\n|---|---|");
    let _ = writeln!(page, "| all but `finding` | {} |", words(Placeholder::OF_PROCESSES));
    for kind in KINDS {
        let _ = writeln!(page, "| `{}` | {} |", kind.name, words(kind.placeholders));
    }
    let _ = writeln!(page, "| with `afterReading` | {} |", words(&[Placeholder::Read]));
    page.push_str("\n## Kinds of findings\n\n| kind | says |\n|---|---|\n");
    for (kind, says) in FINDINGS {
        let _ = writeln!(page, "| `{kind}` | {says} |");
    }
    page
}

/// The mappings below a field, each once, in the order in which they are met.
fn collect(path: &str, shape: &'static Shape, sections: &mut Vec<(String, &'static Shape)>) {
    if let Some((paths, _)) = sections.iter_mut().find(|(_, known)| std::ptr::eq(*known, shape)) {
        let _ = write!(paths, ", {path}");
        return;
    }
    sections.push((path.to_owned(), shape));
    for field in shape.fields() {
        let below = |suffix: &str| match path {
            "" => format!("{}{suffix}", field.name),
            // The first place is enough.
            path => format!("{}.{}{suffix}", path.split(", ").next().unwrap_or(path), field.name),
        };
        match field.holds {
            Holds::One(shape) | Holds::ExactlyOne(shape) | Holds::TextListOr(shape) => {
                collect(&below(""), shape, sections);
            }
            Holds::Many(shape) | Holds::OneOrMany(shape) => collect(&below("[]"), shape, sections),
            _ => {}
        }
    }
}

fn section(page: &mut String, path: &str, shape: &Shape) {
    if !path.is_empty() {
        let paths: Vec<String> = path.split(", ").map(|path| format!("`{path}`")).collect();
        let _ = write!(page, "\n### {}\n", paths.join(", "));
    }
    let _ = write!(page, "\n{}\n\n| field | required | holds | meaning |\n|---|---|---|---|\n", shape.about);
    for field in shape.fields() {
        let required = if field.is_required { "yes" } else { "" };
        let _ = writeln!(page, "| `{}` | {required} | {} | {} |", field.name, in_words(field.holds), field.about);
    }
}

fn in_words(holds: Holds) -> String {
    let quoted = |words: Vec<&str>| words.iter().map(|word| format!("`{word}`")).collect::<Vec<_>>().join(", ");
    match holds {
        Holds::Text => "text".to_owned(),
        Holds::Name => "a name".to_owned(),
        Holds::Bool => "`true` or `false`".to_owned(),
        Holds::Duration => "a time: `30s`, `5m`, `1h`".to_owned(),
        Holds::Integer(least, u64::MAX) => format!("a number, {least} or more"),
        Holds::Integer(least, most) => format!("a number, {least} to {most}"),
        Holds::Integers(least, most) => format!("one number or a list, {least} to {most}"),
        Holds::Ports => "one port, a range such as `8000-8010`, or a list".to_owned(),
        Holds::Texts => "one text or a list".to_owned(),
        Holds::TextList => "a list of texts".to_owned(),
        Holds::Word(words) => format!("one of {}", quoted(words())),
        Holds::Words(words) if words().len() > 12 => "one word or a list".to_owned(),
        Holds::Words(words) => format!("one or a list of {}", quoted(words())),
        Holds::Labels => "a mapping of names to values".to_owned(),
        Holds::Lists => "a mapping of names to lists".to_owned(),
        Holds::Destinations => "networks in CIDR notation, addresses, names; one or a list".to_owned(),
        Holds::One(_) => "a mapping".to_owned(),
        Holds::ExactlyOne(_) => "a mapping with exactly one field".to_owned(),
        Holds::Many(_) => "a list of mappings".to_owned(),
        Holds::OneOrMany(_) => "a mapping or a list of them".to_owned(),
        Holds::TextListOr(_) => "a list of texts, or a mapping".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reference_page_in_the_repository_is_the_tables() {
        expect_test::expect_file!["../../../docs/policy-reference.md"].assert_eq(&reference());
    }

    #[test]
    fn the_schema_in_the_repository_is_the_tables() {
        expect_test::expect_file!["../../../docs/policy.schema.json"].assert_eq(&json_schema());
    }
}
