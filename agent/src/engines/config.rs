//! The `engines` part of the configuration: raw text in, checked targets out.
//!
//! Every checked type is made by `TryFrom<String>`, so that the reader of the configuration can point at the very
//! value that is wrong.

use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

use hyper::Uri;
use serde::Deserialize;

use super::dialect::{self, DIALECTS, Dialect};

/// Which engines are read, and how often.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "Raw")]
pub struct Engines {
    /// Whether to look for listening engine processes as well.
    pub discover: bool,
    pub targets: Vec<Target>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    #[serde(default = "yes")]
    discover: bool,
    #[serde(default)]
    targets: Vec<Target>,
}

fn yes() -> bool {
    true
}

/// One engine.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Target {
    pub name: EngineName,
    pub url: MetricsUrl,
    #[serde(default)]
    pub dialect: Choice,
    #[serde(default)]
    pub interval: Interval,
    /// What to call the model where the engine's page does not say.
    #[serde(default)]
    pub model: Option<String>,
}

/// The label `engine`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(try_from = "String")]
pub struct EngineName(String);

/// Where an engine's page is: `http://host[:port]/path`, the path `/metrics` where none is given.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct MetricsUrl {
    uri: Uri,
    host: String,
    port: u16,
}

/// Which dialect the page is read as.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(try_from = "String")]
pub enum Choice {
    /// The one that recognises the page.
    #[default]
    Auto,
    Only(&'static Dialect),
}

/// Time between the starts of two scrapes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Interval(Duration);

/// What is wrong with a value, and what would be right.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    #[error("engine name {0:?}: expected 1 to 64 letters, digits, `.`, `_` or `-`")]
    Name(String),
    #[error("two engines are named `{0}`: expected each name once")]
    TwiceNamed(EngineName),
    #[error("url {0:?}: expected http://HOST[:PORT][/PATH]")]
    Url(String),
    #[error("url {0:?}: expected http, because TLS to engines is not supported")]
    Tls(String),
    // Does not repeat the url: a password has no place in a log.
    #[error("url with a user or password: expected none")]
    Credentials,
    #[error("dialect {given:?}: expected `auto`, {known}", known = known_dialects())]
    Dialect { given: String },
    #[error("interval {0:?}: expected a time such as `5s`, from 250ms to 1h")]
    Interval(String),
}

fn known_dialects() -> String {
    DIALECTS.iter().map(|dialect| format!("`{}`", dialect.name)).collect::<Vec<_>>().join(", ")
}

impl Default for Engines {
    fn default() -> Self {
        Self { discover: true, targets: Vec::new() }
    }
}

impl TryFrom<Raw> for Engines {
    type Error = ConfigError;

    fn try_from(Raw { discover, targets }: Raw) -> Result<Self, ConfigError> {
        let mut names = BTreeSet::new();
        match targets.iter().find(|target| !names.insert(&target.name)) {
            Some(twice) => Err(ConfigError::TwiceNamed(twice.name.clone())),
            None => Ok(Self { discover, targets }),
        }
    }
}

impl TryFrom<String> for EngineName {
    type Error = ConfigError;

    fn try_from(name: String) -> Result<Self, ConfigError> {
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
        if (1..=64).contains(&name.len()) && name.bytes().all(is_plain) {
            Ok(Self(name))
        } else {
            Err(ConfigError::Name(name))
        }
    }
}

impl EngineName {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for EngineName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for MetricsUrl {
    type Error = ConfigError;

    fn try_from(url: String) -> Result<Self, ConfigError> {
        let Ok(uri) = url.parse::<Uri>() else { return Err(ConfigError::Url(url)) };
        match uri.scheme_str() {
            Some("http") => {}
            Some("https") => return Err(ConfigError::Tls(url)),
            _ => return Err(ConfigError::Url(url)),
        }
        let Some(authority) = uri.authority() else { return Err(ConfigError::Url(url)) };
        if authority.as_str().contains('@') {
            return Err(ConfigError::Credentials);
        }
        // IPv6 stands in brackets in a URL and without them in an address.
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
        let port = match authority.as_str().strip_prefix(authority.host()) {
            Some("") => 80,
            _ => authority.port_u16().unwrap_or(0),
        };
        if host.is_empty() || port == 0 {
            return Err(ConfigError::Url(url));
        }
        let path = match uri.path_and_query().map(hyper::http::uri::PathAndQuery::as_str) {
            None | Some("" | "/") => "/metrics",
            Some(path) => path,
        };
        match format!("http://{authority}{path}").parse() {
            Ok(uri) => Ok(Self { uri, host, port }),
            Err(_) => Err(ConfigError::Url(url)),
        }
    }
}

impl MetricsUrl {
    pub fn uri(&self) -> &Uri {
        &self.uri
    }

    /// A name or an address, without brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    pub fn port(&self) -> u16 {
        self.port
    }
}

impl fmt::Display for MetricsUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.uri.fmt(f)
    }
}

impl TryFrom<String> for Choice {
    type Error = ConfigError;

    fn try_from(name: String) -> Result<Self, ConfigError> {
        if name == "auto" {
            return Ok(Self::Auto);
        }
        dialect::by_name(&name).map(Self::Only).ok_or(ConfigError::Dialect { given: name })
    }
}

impl Choice {
    /// `None` for whichever recognises the page.
    pub fn only(self) -> Option<&'static Dialect> {
        match self {
            Self::Auto => None,
            Self::Only(dialect) => Some(dialect),
        }
    }
}

impl Default for Interval {
    fn default() -> Self {
        Self(Duration::from_secs(5))
    }
}

impl TryFrom<String> for Interval {
    type Error = ConfigError;

    fn try_from(text: String) -> Result<Self, ConfigError> {
        let parsed: Option<Duration> = text.parse::<jiff::SignedDuration>().ok().and_then(|time| time.try_into().ok());
        match parsed {
            Some(time) if (Duration::from_millis(250)..=Duration::from_hours(1)).contains(&time) => Ok(Self(time)),
            _ => Err(ConfigError::Interval(text)),
        }
    }
}

impl Interval {
    pub fn as_duration(self) -> Duration {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::*;

    #[expect(clippy::needless_pass_by_value, reason = "expect! makes a value")]
    fn check(yaml: &str, expect: Expect) {
        let said = match serde_yaml::from_str::<Engines>(yaml) {
            Ok(Engines { discover, targets }) => {
                let targets = targets.iter().map(|Target { name, url, dialect, interval, model }| {
                    let dialect = dialect.only().map_or("auto", |dialect| dialect.name);
                    format!(
                        "{name} {url} ({} {}) {dialect} {:?} {model:?}\n",
                        url.host(),
                        url.port(),
                        interval.as_duration()
                    )
                });
                format!("discover: {discover}\n{}", targets.collect::<String>())
            }
            Err(error) => format!("{error}\n"),
        };
        expect.assert_eq(&said);
    }

    #[test]
    fn little_has_to_be_said() {
        check(
            "{}",
            expect![[r#"
            discover: true
        "#]],
        );
        check(
            "targets: [{name: chat, url: 'http://localhost:8000'}]",
            expect![[r#"
            discover: true
            chat http://localhost:8000/metrics (localhost 8000) auto 5s None
        "#]],
        );
    }

    #[test]
    fn everything_can_be_said() {
        check(
            "discover: false\ntargets:\n- {name: a.b-1, url: 'http://[::1]:8080/x?model=y', dialect: llamacpp, interval: 500ms, model: tiny}\n- {name: b, url: 'http://10.0.0.1/', dialect: auto}\n",
            expect![[r#"
                discover: false
                a.b-1 http://[::1]:8080/x?model=y (::1 8080) llamacpp 500ms Some("tiny")
                b http://10.0.0.1/metrics (10.0.0.1 80) auto 5s None
            "#]],
        );
    }

    #[test]
    fn mistakes_are_named() {
        check(
            "discovery: true",
            expect![[r#"
            error: line 1 column 1: unknown field `discovery`, expected one of discover, targets
             --> <input>:1:1
              |
            1 | discovery: true
              | ^ unknown field `discovery`, expected one of discover, targets
        "#]],
        );
        check(
            "targets: [{name: a b, url: 'http://h'}]",
            expect![[r#"
            error: line 1 column 18: engine name "a b": expected 1 to 64 letters, digits, `.`, `_` or `-`
             --> <input>:1:18
              |
            1 | targets: [{name: a b, url: 'http://h'}]
              |                  ^ engine name "a b": expected 1 to 64 letters, digits, `.`, `_` or `-`
        "#]],
        );
        check(
            "targets: [{name: a, url: 'http://h'}, {name: a, url: 'http://i'}]",
            expect![[r#"
            two engines are named `a`: expected each name once
        "#]],
        );
        check(
            "targets: [{name: a, url: 'https://h'}]",
            expect![[r#"
            error: line 1 column 26: url "https://h": expected http, because TLS to engines is not supported
             --> <input>:1:26
              |
            1 | targets: [{name: a, url: 'https://h'}]
              |                          ^ url "https://h": expected http, because TLS to engines is not supported
        "#]],
        );
        check(
            "targets: [{name: a, url: 'http://u:p@h'}]",
            expect![[r#"
                error: line 1 column 26: url with a user or password: expected none
                 --> <input>:1:26
                  |
                1 | targets: [{name: a, url: 'http://u:p@h'}]
                  |                          ^ url with a user or password: expected none
            "#]],
        );
        check(
            "targets: [{name: a, url: 'localhost:8000'}]",
            expect![[r#"
            error: line 1 column 26: url "localhost:8000": expected http://HOST[:PORT][/PATH]
             --> <input>:1:26
              |
            1 | targets: [{name: a, url: 'localhost:8000'}]
              |                          ^ url "localhost:8000": expected http://HOST[:PORT][/PATH]
        "#]],
        );
        check(
            "targets: [{name: a, url: 'http://h:99999'}]",
            expect![[r#"
                error: line 1 column 26: url "http://h:99999": expected http://HOST[:PORT][/PATH]
                 --> <input>:1:26
                  |
                1 | targets: [{name: a, url: 'http://h:99999'}]
                  |                          ^ url "http://h:99999": expected http://HOST[:PORT][/PATH]
            "#]],
        );
        check(
            "targets: [{name: a, url: 'http://h', dialect: vlm}]",
            expect![[r#"
                error: line 1 column 47: dialect "vlm": expected `auto`, `dynamo`, `llamacpp`, `lmdeploy`, `sglang`, `tgi`, `triton`, `trtllm`, `vllm`
                 --> <input>:1:47
                  |
                1 | targets: [{name: a, url: 'http://h', dialect: vlm}]
                  |                                               ^ dialect "vlm": expected `auto`, `dynamo`, `llamacpp`, `lmdeploy`, `sglang`, `tgi`, `triton`, `trtllm`, `vllm`
            "#]],
        );
        check(
            "targets: [{name: a, url: 'http://h', interval: 0s}]",
            expect![[r#"
            error: line 1 column 48: interval "0s": expected a time such as `5s`, from 250ms to 1h
             --> <input>:1:48
              |
            1 | targets: [{name: a, url: 'http://h', interval: 0s}]
              |                                                ^ interval "0s": expected a time such as `5s`, from 250ms to 1h
        "#]],
        );
        check(
            "targets: [{name: a, url: 'http://h', interval: -5s}]",
            expect![[r#"
            error: line 1 column 48: interval "-5s": expected a time such as `5s`, from 250ms to 1h
             --> <input>:1:48
              |
            1 | targets: [{name: a, url: 'http://h', interval: -5s}]
              |                                                ^ interval "-5s": expected a time such as `5s`, from 250ms to 1h
        "#]],
        );
        check(
            "targets: [{name: a, url: 'http://h', interval: often}]",
            expect![[r#"
            error: line 1 column 48: interval "often": expected a time such as `5s`, from 250ms to 1h
             --> <input>:1:48
              |
            1 | targets: [{name: a, url: 'http://h', interval: often}]
              |                                                ^ interval "often": expected a time such as `5s`, from 250ms to 1h
        "#]],
        );
        check(
            "targets: [{name: a}]",
            expect![[r#"
            error: line 1 column 12: missing field `url`
             --> <input>:1:12
              |
            1 | targets: [{name: a}]
              |            ^ missing field `url`
        "#]],
        );
    }
}
