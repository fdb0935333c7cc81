//! Alerts by one signed webhook, as Standard Webhooks has it: a receiver checks who sent it, drops what comes twice, and
//! refuses what is old.
//!
//! Layout: <https://www.standardwebhooks.com>. One record is one delivery: the body is its exact bytes, and `webhook-id` its
//! `metadata.uid`, the same at every attempt, also after a restart. `webhook-signature` is `v1,` and the base64 of HMAC-SHA-256
//! over `id.timestamp.body`. What is not an alert is passed over, unless the configuration wants every record.

use std::{fs, io, os::unix::fs::MetadataExt as _, path::Path};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use hmac::{Hmac, KeyInit as _, Mac as _};
use hyper::{
    body::Bytes,
    header::{CONTENT_TYPE, HeaderName, HeaderValue},
};
use plumbline_audit::reader::Entry;
use serde::Deserialize;
use sha2::Sha256;
use thiserror::Error;

use super::{
    http::Client,
    sink::{Rejected, Sink, SinkError},
};
use crate::{clock, config::WebhookConfig};

const ID: HeaderName = HeaderName::from_static("webhook-id");
const TIMESTAMP: HeaderName = HeaderName::from_static("webhook-timestamp");
const SIGNATURE: HeaderName = HeaderName::from_static("webhook-signature");

/// A shorter secret can be guessed.
const LEAST_SECRET_BYTES: usize = 24;

#[derive(Debug, Error)]
pub enum SecretError {
    #[error("cannot read the webhook's secret {path}")]
    Read { path: String, source: io::Error },
    #[error("others can read the webhook's secret {path}; expected mode 600")]
    Open { path: String },
    #[error("{path} holds no secret: expected `whsec_` and the base64 of {LEAST_SECRET_BYTES} bytes or more")]
    Form { path: String },
}

pub(super) struct Webhook {
    client: Client,
    secret: Vec<u8>,
    all_records: bool,
}

impl std::fmt::Debug for Webhook {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Webhook").field("client", &self.client).finish_non_exhaustive()
    }
}

impl Webhook {
    pub(super) fn new(config: &WebhookConfig) -> Result<Self, SecretError> {
        let secret = secret(&config.secret_file)?;
        Ok(Self { client: Client::new(config.url.clone()), secret, all_records: config.all_records })
    }
}

fn secret(file: &Path) -> Result<Vec<u8>, SecretError> {
    let path = || file.display().to_string();
    let read = |source| SecretError::Read { path: path(), source };
    if fs::metadata(file).map_err(read)?.mode() & 0o077 != 0 {
        return Err(SecretError::Open { path: path() });
    }
    let text = fs::read_to_string(file).map_err(read)?;
    let bytes = text.trim().strip_prefix("whsec_").and_then(|text| STANDARD.decode(text).ok());
    bytes.filter(|bytes| bytes.len() >= LEAST_SECRET_BYTES).ok_or_else(|| SecretError::Form { path: path() })
}

/// What decides whether a record is sent.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Head {
    is_alert: bool,
    metadata: Metadata,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Metadata {
    uid: String,
}

fn signature(secret: &[u8], id: &str, timestamp: &str, body: &[u8]) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret).expect("HMAC takes a key of any length");
    for part in [id.as_bytes(), b".", timestamp.as_bytes(), b".", body] {
        mac.update(part);
    }
    format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()))
}

impl Webhook {
    async fn deliver(&mut self, id: &str, body: &[u8]) -> Result<(), SinkError> {
        let timestamp = (clock::unix_ns() / 1_000_000_000).to_string();
        let signature = signature(&self.secret, id, &timestamp, body);
        let value = |text: &str| HeaderValue::from_str(text).unwrap_or(HeaderValue::from_static("unprintable"));
        let headers = [
            (CONTENT_TYPE, HeaderValue::from_static("application/json")),
            (ID, value(id)),
            (TIMESTAMP, value(&timestamp)),
            (SIGNATURE, value(&signature)),
        ];
        self.client.post_with("", Bytes::copy_from_slice(body), &headers).await?;
        Ok(())
    }
}

impl Sink for Webhook {
    const NAME: &'static str = "webhook";
    const CURSOR: &'static str = "webhook";

    async fn send(&mut self, entries: &[Entry]) -> Result<Option<Rejected>, SinkError> {
        for entry in entries {
            let Head { is_alert, metadata: Metadata { uid } } =
                serde_json::from_slice(&entry.bytes).unwrap_or_default();
            if is_alert || self.all_records {
                self.deliver(&uid, &entry.bytes).await?;
            }
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    /// The example of the Standard Webhooks specification's own libraries.
    #[test]
    fn the_signature_is_that_of_the_specifications_example() {
        let secret = STANDARD.decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap();
        let body = br#"{"test": 2432232314}"#;
        let signed = signature(&secret, "msg_p5jXN8AQM9LWM0D4loKWxJek", "1614265330", body);
        assert_eq!(signed, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }

    #[test]
    fn a_secret_is_its_owners_alone_and_long_enough() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("secret");
        let write = |text: &str, mode| {
            fs::write(&file, text).unwrap();
            fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
            secret(&file)
        };
        let good = format!("whsec_{}\n", STANDARD.encode([7; 32]));
        assert_eq!(write(&good, 0o600).unwrap(), [7; 32]);
        assert!(matches!(write(&good, 0o644), Err(SecretError::Open { .. })));
        assert!(matches!(write("whsec_AAAA", 0o600), Err(SecretError::Form { .. })));
        assert!(matches!(write("secret", 0o600), Err(SecretError::Form { .. })));
    }
}
