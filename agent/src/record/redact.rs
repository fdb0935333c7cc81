//! What must not become evidence is replaced before a record is hashed: the redacted bytes are the record.
//!
//! Tokens and passwords come into records by arguments, paths and messages. Each rule is one pattern with linear running
//! time (the crate `regex`); what it finds is replaced by `[redacted:<rule>]`, and the record says which rules struck and
//! how often. The environment of a process is never read at all.

use std::borrow::Cow;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use regex::{Regex, RegexSet};
use serde::Deserialize;
use serde_json::{Map, Value};

/// Name and pattern. A pattern's group `keep`, if it has one, stays: the name before the secret.
const BUILT_IN: &[(&str, &str)] = &[
    ("huggingface_token", r"\bhf_[A-Za-z0-9]{20,}"),
    ("openai_key", r"\bsk-[A-Za-z0-9_-]{20,}"),
    ("github_token", r"\b(?:gh[pousr]_[A-Za-z0-9]{30,}|github_pat_[A-Za-z0-9_]{30,})"),
    ("aws_access_key", r"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b"),
    ("google_key", r"\bAIza[0-9A-Za-z_-]{35}"),
    ("slack_token", r"\bxox[abeoprs]-[A-Za-z0-9-]{10,}"),
    ("json_web_token", r"\beyJ[A-Za-z0-9_-]{8,}\.eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]+"),
    ("private_key", r"-----BEGIN [A-Z ]*PRIVATE KEY-----|PRIVATE\+KEY\+[^\s,;]+"),
    ("url_password", r"(?P<keep>://[^/\s:@]{1,64}:)[^/\s@]{1,256}@"),
    ("bearer", r"(?i)(?P<keep>\bbearer\s+)[A-Za-z0-9._~+/=-]{16,}"),
    // As arguments are joined: the value is a word of its own.
    ("secret_argument", r"(?i)(?P<keep>(?:^|\s)--?[a-z0-9_-]*(?:key|token|secret|passwd|password)\s+)[^\s-]\S{5,}"),
    (
        "named_secret",
        r#"(?i)(?P<keep>\b(?:api[_-]?key|access[_-]?key|auth[_-]?token|token|secret|passwd|password)[=:]\s?)[^\s&"']{6,}"#,
    ),
];

/// A rule of the user's.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    pub name: String,
    pub pattern: String,
}

/// All rules, compiled.
#[derive(Debug, Clone)]
pub struct Redactor {
    names: Vec<String>,
    any: RegexSet,
    patterns: Vec<Regex>,
}

impl Default for Redactor {
    fn default() -> Self {
        Self::new(&[]).expect("the built-in patterns are patterns")
    }
}

impl Redactor {
    /// The built-in rules and these.
    pub fn new(rules: &[Rule]) -> Result<Self, regex::Error> {
        let built_in = BUILT_IN.iter().copied();
        let all = || built_in.clone().chain(rules.iter().map(|rule| (&*rule.name, &*rule.pattern)));
        Ok(Self {
            names: all().map(|(name, _)| name.to_owned()).collect(),
            any: RegexSet::new(all().map(|(_, pattern)| pattern))?,
            patterns: all().map(|(_, pattern)| Regex::new(pattern)).collect::<Result<_, _>>()?,
        })
    }

    /// Redacts every text in the record. What struck is told as `{rule: count}`.
    pub fn redact(&self, record: &mut Map<String, Value>) -> Map<String, Value> {
        let mut struck = vec![0u64; self.names.len()];
        record.iter_mut().for_each(|(name, value)| self.value(name, value, &mut struck));
        let told = self.names.iter().zip(struck).filter(|(_, count)| *count > 0);
        told.map(|(name, count)| (name.clone(), count.into())).collect()
    }

    fn value(&self, name: &str, value: &mut Value, struck: &mut [u64]) {
        match value {
            Value::String(text) if name.ends_with("_b64") => {
                // The exact bytes of a text beside: redacted as a whole, because a part of them cannot be.
                let bytes = STANDARD.decode(&*text).unwrap_or_default();
                if let Cow::Owned(_) = self.text(&String::from_utf8_lossy(&bytes), struck) {
                    *text = "[redacted]".to_owned();
                }
            }
            Value::String(text) => {
                if let Cow::Owned(redacted) = self.text(text, struck) {
                    *text = redacted;
                }
            }
            Value::Array(items) => items.iter_mut().for_each(|item| self.value(name, item, struck)),
            Value::Object(fields) => fields.iter_mut().for_each(|(name, value)| self.value(name, value, struck)),
            Value::Null | Value::Bool(_) | Value::Number(_) => {}
        }
    }

    fn text<'a>(&self, text: &'a str, struck: &mut [u64]) -> Cow<'a, str> {
        let mut redacted = Cow::Borrowed(text);
        for rule in self.any.matches(text).iter() {
            let replaced = self.patterns[rule].replace_all(&redacted, |found: &regex::Captures<'_>| {
                struck[rule] += 1;
                let kept = found.name("keep").map_or("", |kept| kept.as_str());
                format!("{kept}[redacted:{}]", self.names[rule])
            });
            if let Cow::Owned(replaced) = replaced {
                redacted = Cow::Owned(replaced);
            }
        }
        redacted
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[track_caller]
    fn check(text: &str, expect: &str) {
        let redactor = Redactor::default();
        let mut record = Map::from_iter([("deep".to_owned(), json!([{ "text": text }]))]);
        redactor.redact(&mut record);
        assert_eq!(record["deep"][0]["text"], expect);
    }

    #[test]
    fn tokens_and_passwords_are_replaced_wherever_they_are() {
        check(
            "curl -H 'Authorization: Bearer abcdefghijklmnop.qrst' x",
            "curl -H 'Authorization: Bearer [redacted:bearer]' x",
        );
        check("--token=hf_abcdefghijklmnopqrstuvwxyz0123", "--token=[redacted:named_secret]");
        // As the arguments of a process are joined.
        check(
            "vllm serve m --api-key s3cret-value --port 1",
            "vllm serve m --api-key [redacted:secret_argument] --port 1",
        );
        check("x --hf-token abcdef12 -v", "x --hf-token [redacted:secret_argument] -v");
        check("hf_abcdefghijklmnopqrstuvwxyz0123 b", "[redacted:huggingface_token] b");
        check("OPENAI sk-proj-abcdefghijklmnopqrst", "OPENAI [redacted:openai_key]");
        check("AKIAIOSFODNN7EXAMPLE", "[redacted:aws_access_key]");
        check("https://me:hunter2@host/x", "https://me:[redacted:url_password]host/x");
        check("password=correct-horse&x=1", "password=[redacted:named_secret]&x=1");
        check("PRIVATE+KEY+log.example/a+00000000+AAAA rest", "[redacted:private_key] rest");
    }

    #[test]
    fn names_of_models_and_files_are_left_alone() {
        for text in [
            "/models/task-assessment-of-risk-in-language-models.safetensors",
            "/models/llama/tokenizer.json",
            "/usr/bin/ask-something-really-long-here-please",
            "meta-llama/Llama-3.1-8B opened by vllm (pid 17)",
            "http://10.0.0.1:8000/v1",
            "llama-server --keep-token --port 8080",
        ] {
            check(text, text);
        }
    }

    #[test]
    fn the_rules_that_struck_are_told_and_exact_bytes_do_not_leak_what_was_redacted() {
        let secret = b"/m/\xff hf_abcdefghijklmnopqrstuvwxyz0123";
        let mut record = Map::from_iter([
            ("path".to_owned(), Value::from(String::from_utf8_lossy(secret))),
            ("path_b64".to_owned(), STANDARD.encode(secret).into()),
            ("other_b64".to_owned(), STANDARD.encode(b"/m/\xff").into()),
        ]);
        let struck = Redactor::default().redact(&mut record);
        assert_eq!(Value::from(struck), json!({"huggingface_token": 2}));
        assert_eq!(record["path_b64"], "[redacted]");
        assert_eq!(record["other_b64"], STANDARD.encode(b"/m/\xff"));
    }

    #[test]
    fn a_rule_of_the_user_counts_too_and_a_bad_pattern_is_an_error() {
        let rule = |pattern: &str| Rule { name: "ticket".into(), pattern: pattern.into() };
        let redactor = Redactor::new(&[rule("TICKET-[0-9]+")]).unwrap();
        let mut record = Map::from_iter([("message".to_owned(), Value::from("see TICKET-17 and TICKET-18"))]);
        assert_eq!(Value::from(redactor.redact(&mut record)), json!({"ticket": 2}));
        assert_eq!(record["message"], "see [redacted:ticket] and [redacted:ticket]");
        assert!(Redactor::new(&[rule("(")]).is_err());
    }
}
