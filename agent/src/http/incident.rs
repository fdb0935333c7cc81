//! `POST /api/v1/incident`, and the token that every write of the API wants. What Alertmanager sends to a webhook is taken as it is.

use std::{fmt, fs, io, os::unix::fs::MetadataExt as _, path::Path};

use axum::{
    body::Bytes,
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse as _, Response},
};
use serde::Deserialize;
use sha2::{Digest as _, Sha256};

use crate::{
    clock,
    incident::{Incident, IncidentConfig},
};

/// More than any alert of Alertmanager's; what is longer is refused before it is read.
pub const MOST_BYTES: usize = 256 << 10;

/// Alerts that are named; more are told as a number.
const MOST_NAMED: usize = 5;

/// What of the name of an alert is recorded.
const MOST_CHARACTERS: usize = 120;

/// Alertmanager's payload (version 4), as far as it matters; or one of our own with `minutes` and `why`.
#[derive(Debug, Deserialize)]
struct Payload {
    status: Option<String>,
    #[serde(default)]
    alerts: Vec<Alert>,
    minutes: Option<u64>,
    why: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Alert {
    #[serde(default)]
    labels: Labels,
}

#[derive(Debug, Default, Deserialize)]
struct Labels {
    alertname: Option<String>,
}

/// Who may begin an incident, and for how long.
#[derive(Debug, Clone)]
pub struct Gate {
    pub incident: Incident,
    config: IncidentConfig,
    /// The hash of the token: comparing hashes tells nobody how much of a guess was right.
    token: Option<[u8; 32]>,
}

impl Gate {
    /// A token that others can read, or an empty one, is an error.
    pub fn new(incident: Incident, config: &IncidentConfig) -> io::Result<Self> {
        let token = config.token_file.as_deref().map(token).transpose()?;
        Ok(Self { incident, config: config.clone(), token })
    }

    /// Whether who asks may say something; otherwise what is answered.
    pub fn admit(&self, headers: &HeaderMap) -> Result<(), (StatusCode, &'static str)> {
        let Some(token) = self.token else {
            return Err((StatusCode::FORBIDDEN, "no `incident.token_file` in the configuration: nobody may say so"));
        };
        let given = headers.get(header::AUTHORIZATION).and_then(|value| value.as_bytes().strip_prefix(b"Bearer "));
        if given.is_none_or(|given| hash(given) != token) {
            return Err((
                StatusCode::UNAUTHORIZED,
                "expected `Authorization: Bearer TOKEN` with the token of `incident.token_file`",
            ));
        }
        Ok(())
    }

    pub fn answer(&self, headers: &HeaderMap, body: &Bytes) -> Response {
        if let Err((status, why)) = self.admit(headers) {
            return refused(status, why);
        }
        let payload: Payload = match serde_json::from_slice(body) {
            Ok(payload) => payload,
            Err(error) => return refused(StatusCode::BAD_REQUEST, &format!("not Alertmanager's JSON: {error}")),
        };
        let now_boot_ns = clock::boot_ns();
        match payload.status.as_deref() {
            Some("firing") => {
                let length = self.config.length(payload.minutes);
                let until = self.incident.begin(now_boot_ns, length, &payload.words());
                let seconds = until.saturating_sub(now_boot_ns) / 1_000_000_000;
                answered(&format!("{{\"incident\": true, \"seconds\": {seconds}}}\n"))
            }
            Some("resolved") => {
                self.incident.end(now_boot_ns, &payload.words());
                answered("{\"incident\": false}\n")
            }
            _ => refused(
                StatusCode::BAD_REQUEST,
                "expected `\"status\": \"firing\"` or `\"resolved\"`, as Alertmanager sends",
            ),
        }
    }
}

impl Payload {
    fn words(&self) -> String {
        let names = self.alerts.iter().map(|alert| alert.labels.alertname.as_deref().unwrap_or("without a name"));
        let mut words: Vec<String> = names.take(MOST_NAMED).map(|name| format!("alert {}", Shown(name))).collect();
        if self.alerts.len() > MOST_NAMED {
            words.push(format!("{} more", self.alerts.len() - MOST_NAMED));
        }
        words.extend(self.why.as_deref().filter(|why| !why.is_empty()).map(|why| Shown(why).to_string()));
        if words.is_empty() { "no reason given".to_owned() } else { words.join(", ") }
    }
}

/// Somebody else's text: cut, and without control characters.
struct Shown<'a>(&'a str);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = self.0.chars().map(|one| if one.is_control() { '\u{fffd}' } else { one });
        shown.take(MOST_CHARACTERS).try_for_each(|one| write!(f, "{one}"))
    }
}

fn token(file: &Path) -> io::Result<[u8; 32]> {
    let named = |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", file.display()));
    if fs::metadata(file).map_err(named)?.mode() & 0o077 != 0 {
        return Err(io::Error::other(format!("others can read the token {}; expected mode 600", file.display())));
    }
    let token = fs::read(file).map_err(named)?;
    let token = token.trim_ascii();
    if token.len() < LEAST_TOKEN_BYTES {
        let least = format!(
            "{}: the token is shorter than {LEAST_TOKEN_BYTES} bytes; write one with `openssl rand -hex 16`",
            file.display()
        );
        return Err(io::Error::other(least));
    }
    Ok(hash(token))
}

const LEAST_TOKEN_BYTES: usize = 16;

fn hash(token: &[u8]) -> [u8; 32] {
    Sha256::digest(token).into()
}

pub fn answered(body: &str) -> Response {
    ([(header::CONTENT_TYPE, "application/json")], body.to_owned()).into_response()
}

pub fn refused(status: StatusCode, why: &str) -> Response {
    (status, format!("{why}\n")).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOKEN: &str = "0123456789abcdef";

    /// Status and first words of the answer; and what was said.
    fn check(authorization: Option<&str>, body: &str, expect: (u16, &[&str])) {
        let incident = Incident::default();
        let gate =
            Gate { incident: incident.clone(), config: IncidentConfig::default(), token: Some(hash(TOKEN.as_bytes())) };
        let mut headers = HeaderMap::new();
        if let Some(value) = authorization {
            headers.insert(header::AUTHORIZATION, value.parse().unwrap());
        }
        let status = gate.answer(&headers, &Bytes::copy_from_slice(body.as_bytes())).status().as_u16();
        let said: Vec<String> = incident.take_said(clock::boot_ns()).into_iter().map(|(_, words)| words).collect();
        assert_eq!(
            (status, said.iter().map(String::as_str).collect::<Vec<_>>()),
            (expect.0, expect.1.to_vec()),
            "{body}"
        );
    }

    fn with_token(body: &str, expect: (u16, &[&str])) {
        check(Some("Bearer 0123456789abcdef"), body, expect);
    }

    #[test]
    fn what_alertmanager_sends_begins_and_ends_one() {
        let firing = r#"{"version":"4","groupKey":"{}:{}","truncatedAlerts":0,"status":"firing","receiver":"plumbline",
            "groupLabels":{},"commonLabels":{"alertname":"TTFT"},"externalURL":"http://a","alerts":[{"status":"firing","labels":
            {"alertname":"TTFT","pod":"vllm-0"},"annotations":{},"startsAt":"2026-11-26T14:00:00Z","fingerprint":"1"}]}"#;
        with_token(firing, (200, &["an incident begins for 600 s: alert TTFT"]));
        with_token(&firing.replace("firing", "resolved"), (200, &[]));
    }

    #[test]
    fn a_command_may_say_for_how_long_and_why_within_bounds() {
        with_token(r#"{"status":"firing","minutes":2,"why":"drill"}"#, (200, &["an incident begins for 120 s: drill"]));
        with_token(
            r#"{"status":"firing","minutes":9999999}"#,
            (200, &["an incident begins for 3600 s: no reason given"]),
        );
    }

    #[test]
    fn without_the_token_nothing_happens() {
        for authorization in
            [None, Some("Bearer wrong"), Some("Bearer "), Some("0123456789abcdef"), Some("Basic 0123456789abcdef")]
        {
            check(authorization, r#"{"status":"firing"}"#, (401, &[]));
        }
    }

    #[test]
    fn bad_input_is_refused_with_what_was_expected() {
        for body in ["", "[]", "{", r#"{"status":"flaring"}"#, r#"{"status":7}"#, r#"{"alerts":{}}"#, "\u{0}"] {
            with_token(body, (400, &[]));
        }
    }

    #[test]
    fn a_hostile_name_is_shown_harmless_and_short() {
        let long = "x".repeat(500);
        let body = format!(
            r#"{{"status":"firing","alerts":[{{"labels":{{"alertname":"a\u001b[31m{long}"}}}},{{}},{{}},{{}},{{}},{{}},{{}}]}}"#
        );
        let words = format!(
            "an incident begins for 600 s: alert a\u{fffd}[31m{}, alert without a name, alert without a name, alert without a name, \
             alert without a name, 2 more",
            "x".repeat(114)
        );
        with_token(&body, (200, &[&words]));
    }

    #[test]
    fn a_token_that_others_can_read_or_anybody_can_guess_is_refused() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("token");
        let with = |content: &str, mode: u32| {
            fs::write(&file, content).unwrap();
            fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
            token(&file).map_err(|error| error.to_string())
        };
        assert_eq!(with(&format!("{TOKEN}\n"), 0o600), Ok(hash(TOKEN.as_bytes())));
        assert!(with(TOKEN, 0o640).unwrap_err().contains("expected mode 600"));
        assert!(with("short", 0o600).unwrap_err().contains("shorter than 16 bytes"));
    }
}
