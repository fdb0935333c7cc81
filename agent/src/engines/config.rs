//! The `engines` part of the configuration: raw text in, checked targets out.
//!
//! Every checked type is made by `TryFrom<String>`, so that the reader of the configuration can point at the very
//! value that is wrong.

use std::collections::BTreeSet;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;

use super::access::{Access, MetricsUrl, Written};
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
#[serde(try_from = "RawTarget")]
pub struct Target {
    pub name: EngineName,
    pub access: Access,
    pub dialect: Choice,
    pub interval: Interval,
    /// What to call the model where the engine's page does not say.
    pub model: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawTarget {
    name: EngineName,
    url: MetricsUrl,
    #[serde(default)]
    dialect: Choice,
    #[serde(default)]
    interval: Interval,
    #[serde(default)]
    model: Option<String>,
    #[serde(default)]
    unix_socket: Option<PathBuf>,
    #[serde(default)]
    network_namespace: Option<PathBuf>,
    #[serde(default)]
    ca_file: Option<PathBuf>,
    #[serde(default)]
    server_name: Option<String>,
    #[serde(default)]
    cert_file: Option<PathBuf>,
    #[serde(default)]
    key_file: Option<PathBuf>,
    #[serde(default)]
    token_file: Option<PathBuf>,
}

/// Letters of an engine's name.
const MAX_NAME: usize = 128;

/// The label `engine`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(try_from = "String")]
pub struct EngineName(String);

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
    #[error("engine name {0:?}: expected 1 to 128 letters, digits, `.`, `_` or `-`")]
    Name(String),
    #[error("two engines are named `{0}`: expected each name once")]
    TwiceNamed(EngineName),
    #[error("url {0:?}: expected http://HOST[:PORT][/PATH] or the same with https")]
    Url(String),
    #[error(
        "an https url: expected `ca_file`, with the certificate that has signed the engine's, or with the engine's own"
    )]
    NoCa,
    #[error("`ca_file`, `server_name`, `cert_file` or `key_file`: expected an https url with them")]
    TlsWithoutHttps,
    #[error("server_name {0:?}: expected the name in the engine's certificate")]
    ServerName(String),
    #[error("`cert_file` or `key_file` alone: expected both")]
    HalfCertificate,
    #[error(
        "`token_file`: expected an https url, a loopback address or `unix_socket`, because others could read the token"
    )]
    OpenToken,
    #[error("`unix_socket` and `network_namespace`: expected one of them")]
    TwoWays,
    #[error("{key} {}: expected an absolute path", path.display())]
    Relative { key: &'static str, path: PathBuf },
    #[error(
        "a url with a name and `network_namespace`: expected an address such as 127.0.0.1, as names are looked up here"
    )]
    NoAddress,
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

impl TryFrom<RawTarget> for Target {
    type Error = ConfigError;

    fn try_from(raw: RawTarget) -> Result<Self, ConfigError> {
        let RawTarget {
            name, url, dialect, interval, model, unix_socket, network_namespace, ca_file, server_name, ..
        } = raw;
        let RawTarget { cert_file, key_file, token_file, .. } = raw;
        let written = Written { unix_socket, network_namespace, ca_file, server_name, cert_file, key_file, token_file };
        Ok(Self { name, access: Access::new(url, written)?, dialect, interval, model })
    }
}

impl TryFrom<String> for EngineName {
    type Error = ConfigError;

    fn try_from(name: String) -> Result<Self, ConfigError> {
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
        if (1..=MAX_NAME).contains(&name.len()) && name.bytes().all(is_plain) {
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
                let targets = targets.iter().map(|Target { name, access, dialect, interval, model }| {
                    let dialect = dialect.only().map_or("auto", |dialect| dialect.name);
                    let (host, port) = (access.url.host(), access.url.port());
                    format!("{name} {access} ({host} {port}) {dialect} {:?} {model:?}\n", interval.as_duration())
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
    fn a_page_may_be_behind_tls_a_socket_or_in_another_network() {
        check(
            "targets:\n- {name: a, url: 'https://h', ca_file: /ca, cert_file: /c, key_file: /k, token_file: /t}\n- {name: b, url: 'http://h/m', unix_socket: /run/e.sock, token_file: /t}\n- {name: c, url: 'http://[::1]:9', network_namespace: /run/netns/x}\n",
            expect![[r#"
                discover: true
                a https://h/metrics (h 443) auto 5s None
                b http://h/m at /run/e.sock (h 80) auto 5s None
                c http://[::1]:9/metrics in /run/netns/x (::1 9) auto 5s None
            "#]],
        );
    }

    #[test]
    fn the_documented_example_is_one() {
        let (_, rest) = include_str!("head.md").split_once("```yaml\nengines:\n").unwrap();
        let (yaml, _) = rest.split_once("```").unwrap();
        let engines: Engines = serde_yaml::from_str(yaml).unwrap();
        assert_eq!(engines.targets.len(), 4);
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
            error: line 1 column 18: engine name "a b": expected 1 to 128 letters, digits, `.`, `_` or `-`
             --> <input>:1:18
              |
            1 | targets: [{name: a b, url: 'http://h'}]
              |                  ^ engine name "a b": expected 1 to 128 letters, digits, `.`, `_` or `-`
        "#]],
        );
        check(
            "targets: [{name: a, url: 'http://h'}, {name: a, url: 'http://i'}]",
            expect![[r#"
            two engines are named `a`: expected each name once
        "#]],
        );
        for (more, expect) in [
            ("url: 'https://h'", "an https url: expected `ca_file`"),
            ("url: 'http://h', ca_file: /ca", "expected an https url with them"),
            ("url: 'https://h', ca_file: /ca, cert_file: /c", "`cert_file` or `key_file` alone: expected both"),
            ("url: 'https://h', ca_file: /ca, server_name: 'no name'", "server_name \"no name\": expected the name"),
            ("url: 'http://h', token_file: /t", "`token_file`: expected an https url, a loopback address"),
            ("url: 'http://h', unix_socket: /s, network_namespace: /n", "expected one of them"),
            ("url: 'http://h', unix_socket: s", "unix_socket s: expected an absolute path"),
            ("url: 'http://h', network_namespace: /n", "expected an address such as 127.0.0.1"),
        ] {
            let said = serde_yaml::from_str::<Engines>(&format!("targets: [{{name: a, {more}}}]"));
            let said = said.expect_err(more).to_string();
            assert!(said.contains(expect), "{more}: {said}");
        }
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
            error: line 1 column 26: url "localhost:8000": expected http://HOST[:PORT][/PATH] or the same with https
             --> <input>:1:26
              |
            1 | targets: [{name: a, url: 'localhost:8000'}]
              |                          ^ url "localhost:8000": expected http://HOST[:PORT][/PATH] or the same with https
        "#]],
        );
        check(
            "targets: [{name: a, url: 'http://h:99999'}]",
            expect![[r#"
                error: line 1 column 26: url "http://h:99999": expected http://HOST[:PORT][/PATH] or the same with https
                 --> <input>:1:26
                  |
                1 | targets: [{name: a, url: 'http://h:99999'}]
                  |                          ^ url "http://h:99999": expected http://HOST[:PORT][/PATH] or the same with https
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
