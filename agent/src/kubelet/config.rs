//! Where the kubelet's interface is, and what it takes to ask it: checked when the configuration is read.

use std::path::PathBuf;

use hyper::{Uri, header::HeaderValue};
use serde::Deserialize;
use thiserror::Error;
use tokio_rustls::rustls::pki_types::ServerName;

/// As it is written.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    url: String,
    #[serde(default)]
    ca_file: Option<PathBuf>,
    #[serde(default)]
    server_name: Option<String>,
    #[serde(default)]
    token_file: Option<PathBuf>,
}

/// How the kubelet is asked.
#[derive(Debug, Clone, Deserialize)]
#[serde(try_from = "Written")]
pub struct KubeletApi {
    pub host: String,
    pub port: u16,
    /// Host and port as they were written.
    pub authority: HeaderValue,
    pub security: Security,
}

/// Whether the kubelet proves who it is, and we prove who we are.
#[derive(Debug, Clone)]
pub enum Security {
    /// The read-only port, where a cluster has it: no proof, and no secret of ours.
    None,
    Tls {
        /// Certificates, one of which must have signed the kubelet's.
        ca_file: PathBuf,
        /// The name that the kubelet's certificate is for.
        server_name: ServerName<'static>,
        /// A token of the service account, read anew for each question, as it is renewed.
        token_file: Option<PathBuf>,
    },
}

/// What is wrong, and what would be right.
#[derive(Debug, PartialEq, Eq, Error)]
pub enum KubeletApiError {
    #[error("url {0:?}: expected https://HOST[:PORT], such as https://127.0.0.1:10250")]
    Url(String),
    #[error("a token over http would be read by whoever listens: write https, or leave `token_file` out")]
    TokenInClear,
    #[error(
        "https needs `ca_file`: the cluster's, or the kubelet's own /var/lib/kubelet/pki/kubelet.crt where it signed itself"
    )]
    NoCa,
    #[error("server_name {0:?}: expected the name in the kubelet's certificate, such as the node's")]
    ServerName(String),
}

/// The kubelet's ports (kubernetes, `pkg/cluster/ports/ports.go`).
const PORT: u16 = 10250;
const READ_ONLY_PORT: u16 = 10255;

impl TryFrom<Written> for KubeletApi {
    type Error = KubeletApiError;

    fn try_from(written: Written) -> Result<Self, KubeletApiError> {
        let Written { url, ca_file, server_name, token_file } = written;
        let wrong = || KubeletApiError::Url(url.clone());
        let uri: Uri = url.parse().map_err(|_| wrong())?;
        let is_tls = match uri.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            _ => return Err(wrong()),
        };
        let authority = uri.authority().filter(|authority| !authority.as_str().contains('@')).ok_or_else(wrong)?;
        if !matches!(uri.path(), "" | "/") || uri.query().is_some() {
            return Err(wrong());
        }
        // IPv6 stands in brackets in a URL and without them in an address.
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
        let port = match authority.as_str().strip_prefix(authority.host()) {
            Some("") => {
                if is_tls {
                    PORT
                } else {
                    READ_ONLY_PORT
                }
            }
            _ => authority.port_u16().filter(|&port| port != 0).ok_or_else(wrong)?,
        };
        let security = if is_tls {
            let name = server_name.unwrap_or_else(|| host.clone());
            let server_name = ServerName::try_from(name.clone()).map_err(|_| KubeletApiError::ServerName(name))?;
            Security::Tls { ca_file: ca_file.ok_or(KubeletApiError::NoCa)?, server_name, token_file }
        } else if token_file.is_some() {
            return Err(KubeletApiError::TokenInClear);
        } else {
            Security::None
        };
        let authority = authority.as_str().parse().map_err(|_| wrong())?;
        Ok(Self { host, port, authority, security })
    }
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::*;

    #[expect(clippy::needless_pass_by_value, reason = "expect! makes a value")]
    fn check(yaml: &str, expect: Expect) {
        let said = match serde_yaml::from_str::<Written>(yaml).map(KubeletApi::try_from) {
            Ok(Ok(api)) => {
                let name = match &api.security {
                    Security::None => "no TLS".to_owned(),
                    Security::Tls { server_name, token_file, .. } => {
                        format!("TLS for {}, token {token_file:?}", server_name.to_str())
                    }
                };
                format!("{} {} {name}", api.host, api.port)
            }
            Ok(Err(error)) => error.to_string(),
            Err(error) => error.to_string(),
        };
        expect.assert_eq(&said);
    }

    #[test]
    fn the_kubelet_is_asked_over_tls_or_at_its_read_only_port() {
        check(
            "{url: 'https://10.0.0.7', ca_file: /ca, server_name: node-7, token_file: /token}",
            expect![[r#"10.0.0.7 10250 TLS for node-7, token Some("/token")"#]],
        );
        check("{url: 'https://[::1]:9999/', ca_file: /ca}", expect!["::1 9999 TLS for ::1, token None"]);
        check("{url: 'http://127.0.0.1'}", expect!["127.0.0.1 10255 no TLS"]);
    }

    #[test]
    fn anything_else_is_refused_with_what_would_be_right() {
        check(
            "{url: 'ftp://a'}",
            expect![[r#"url "ftp://a": expected https://HOST[:PORT], such as https://127.0.0.1:10250"#]],
        );
        check(
            "{url: 'https://a/pods', ca_file: /ca}",
            expect![[r#"url "https://a/pods": expected https://HOST[:PORT], such as https://127.0.0.1:10250"#]],
        );
        check(
            "{url: 'https://u:p@a', ca_file: /ca}",
            expect![[r#"url "https://u:p@a": expected https://HOST[:PORT], such as https://127.0.0.1:10250"#]],
        );
        check(
            "{url: 'https://a'}",
            expect![
                "https needs `ca_file`: the cluster's, or the kubelet's own /var/lib/kubelet/pki/kubelet.crt where it signed itself"
            ],
        );
        check(
            "{url: 'http://a', token_file: /token}",
            expect!["a token over http would be read by whoever listens: write https, or leave `token_file` out"],
        );
        check(
            "{url: 'https://a', ca_file: /ca, server_name: 'no name'}",
            expect![[r#"server_name "no name": expected the name in the kubelet's certificate, such as the node's"#]],
        );
    }
}
