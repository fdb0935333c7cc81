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
    ca_file: PathBuf,
    #[serde(default)]
    server_name: Option<String>,
    #[serde(default)]
    token_file: Option<PathBuf>,
}

/// How the kubelet is asked: over TLS, which it must prove itself for.
#[derive(Debug, Clone, Deserialize)]
#[serde(try_from = "Written")]
pub struct KubeletApi {
    pub host: String,
    pub port: u16,
    /// Host and port as they were written.
    pub authority: HeaderValue,
    /// Certificates, one of which must have signed the kubelet's.
    pub ca_file: PathBuf,
    /// The name that the kubelet's certificate is for.
    pub server_name: ServerName<'static>,
    /// A token of the service account, read anew for each question, as it is renewed.
    pub token_file: Option<PathBuf>,
}

/// What is wrong, and what would be right.
#[derive(Debug, PartialEq, Eq, Error)]
pub enum KubeletApiError {
    #[error("url {0:?}: expected https://HOST[:PORT], such as https://127.0.0.1:10250")]
    Url(String),
    #[error("server_name {0:?}: expected the name in the kubelet's certificate, such as the node's")]
    ServerName(String),
}

/// The kubelet's port (kubernetes, `pkg/cluster/ports/ports.go`). The read-only one beside it, 10255, proves nothing: anyone
/// may listen there where the kubelet does not.
const PORT: u16 = 10250;

impl TryFrom<Written> for KubeletApi {
    type Error = KubeletApiError;

    fn try_from(written: Written) -> Result<Self, KubeletApiError> {
        let Written { url, ca_file, server_name, token_file } = written;
        let wrong = || KubeletApiError::Url(url.clone());
        let uri: Uri = url.parse().map_err(|_| wrong())?;
        if uri.scheme_str() != Some("https") {
            return Err(wrong());
        }
        let authority = uri.authority().filter(|authority| !authority.as_str().contains('@')).ok_or_else(wrong)?;
        if !matches!(uri.path(), "" | "/") || uri.query().is_some() {
            return Err(wrong());
        }
        // IPv6 stands in brackets in a URL and without them in an address.
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
        let port = match authority.as_str().strip_prefix(authority.host()) {
            Some("") => PORT,
            _ => authority.port_u16().filter(|&port| port != 0).ok_or_else(wrong)?,
        };
        let name = server_name.unwrap_or_else(|| host.clone());
        let server_name = ServerName::try_from(name.clone()).map_err(|_| KubeletApiError::ServerName(name))?;
        let authority = authority.as_str().parse().map_err(|_| wrong())?;
        Ok(Self { host, port, authority, ca_file, server_name, token_file })
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
                let KubeletApi { host, port, server_name, token_file, .. } = &api;
                format!("{host} {port} for {}, token {token_file:?}", server_name.to_str())
            }
            Ok(Err(error)) => error.to_string(),
            Err(error) => error.to_string(),
        };
        expect.assert_eq(&said);
    }

    #[test]
    fn the_kubelet_is_asked_over_tls() {
        check(
            "{url: 'https://10.0.0.7', ca_file: /ca, server_name: node-7, token_file: /token}",
            expect![[r#"10.0.0.7 10250 for node-7, token Some("/token")"#]],
        );
        check("{url: 'https://[::1]:9999/', ca_file: /ca}", expect!["::1 9999 for ::1, token None"]);
    }

    #[test]
    fn anything_else_is_refused_with_what_would_be_right() {
        for url in ["http://127.0.0.1:10255", "ftp://a", "https://a/pods", "https://u:p@a", "https://a:0", ""] {
            let expect = format!("url {url:?}: expected https://HOST[:PORT], such as https://127.0.0.1:10250");
            let written = serde_yaml::from_str::<Written>(&format!("{{url: '{url}', ca_file: /ca}}")).unwrap();
            assert_eq!(KubeletApi::try_from(written).unwrap_err().to_string(), expect);
        }
        check(
            "{url: 'https://a', ca_file: /ca, server_name: 'no name'}",
            expect![[r#"server_name "no name": expected the name in the kubelet's certificate, such as the node's"#]],
        );
        let written = serde_yaml::from_str::<Written>("{url: 'https://a'}").unwrap_err().to_string();
        assert!(written.contains("missing field `ca_file`"), "{written}");
    }
}
