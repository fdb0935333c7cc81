//! One question to the kubelet: `GET /pods` over a connection of its own, one deadline for all, a bounded answer.

use std::{io, path::PathBuf, sync::Arc, time::Duration};

use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::{
    Request, StatusCode,
    body::Bytes,
    client::conn::http1::handshake,
    header::{ACCEPT, AUTHORIZATION, HOST, HeaderValue, USER_AGENT},
};
use hyper_util::rt::TokioIo;
use thiserror::Error;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};
use tokio_rustls::{
    TlsConnector,
    rustls::{
        self, ClientConfig, RootCertStore,
        crypto::ring,
        pki_types::{CertificateDer, pem::PemObject as _},
    },
};

use super::config::KubeletApi;

/// From the start of connecting to the last byte.
const TIMEOUT: Duration = Duration::from_secs(10);

/// A hundred pods with long descriptions have a few megabytes.
const ANSWER_BYTES: usize = 32 << 20;

/// Why there is no answer.
#[derive(Debug, Error)]
pub(super) enum AskError {
    #[error("connecting to {host}:{port}")]
    Connect { host: String, port: u16, source: io::Error },
    #[error("no whole answer within {TIMEOUT:?}")]
    Timeout,
    #[error("cannot read {}", path.display())]
    File { path: PathBuf, source: io::Error },
    #[error("{} has no certificate that could be used: {why}", path.display())]
    Certificates { path: PathBuf, why: String },
    #[error("{} has no token", path.display())]
    Token { path: PathBuf },
    #[error("TLS is not possible here")]
    Tls(#[source] rustls::Error),
    #[error("agreeing on TLS with the kubelet")]
    Handshake(#[source] io::Error),
    #[error("speaking HTTP with the kubelet")]
    Http(#[source] hyper::Error),
    #[error("the kubelet answered {0}, not 200{hint}", hint = hint(*.0))]
    Status(StatusCode),
    #[error("the answer broke off, or is longer than {ANSWER_BYTES} bytes: {0}")]
    Body(String),
    #[error("the answer is no list of pods")]
    Json(#[source] serde_json::Error),
}

fn hint(status: StatusCode) -> &'static str {
    match status {
        StatusCode::UNAUTHORIZED => ": it knows no such token as in `token_file`",
        StatusCode::FORBIDDEN => ": the service account may not `get` the resource `nodes/pods`",
        StatusCode::NOT_FOUND => ": this is not a kubelet's port",
        _ => "",
    }
}

/// The list of the node's pods, as the kubelet sends it.
pub(super) async fn pods(api: &KubeletApi) -> Result<Bytes, AskError> {
    tokio::time::timeout(TIMEOUT, ask(api)).await.unwrap_or(Err(AskError::Timeout))
}

async fn ask(api: &KubeletApi) -> Result<Bytes, AskError> {
    let (host, port) = (&*api.host, api.port);
    let stream = TcpStream::connect((host, port)).await.map_err(|source| AskError::Connect {
        host: host.to_owned(),
        port,
        source,
    })?;
    let connector = TlsConnector::from(Arc::new(trusting(&api.ca_file).await?));
    let token = match &api.token_file {
        Some(path) => Some(bearer(path).await?),
        None => None,
    };
    // The token is sent behind this, to who has proven to be the kubelet.
    let stream = connector.connect(api.server_name.clone(), stream).await.map_err(AskError::Handshake)?;
    exchange(api, stream, token).await
}

/// TLS 1.3 with whose certificate one of these has signed; one that signed itself is its own.
async fn trusting(path: &PathBuf) -> Result<ClientConfig, AskError> {
    let pem = tokio::fs::read(path).await.map_err(|source| AskError::File { path: path.clone(), source })?;
    let unusable = |why: String| AskError::Certificates { path: path.clone(), why };
    let mut roots = RootCertStore::empty();
    let certificates: Vec<_> =
        CertificateDer::pem_slice_iter(&pem).collect::<Result<_, _>>().map_err(|error| unusable(error.to_string()))?;
    let (added, _) = roots.add_parsable_certificates(certificates);
    if added == 0 {
        return Err(unusable("it has none".to_owned()));
    }
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(AskError::Tls)?;
    Ok(config.with_root_certificates(roots).with_no_client_auth())
}

async fn bearer(path: &PathBuf) -> Result<HeaderValue, AskError> {
    let text = tokio::fs::read_to_string(path).await.map_err(|source| AskError::File { path: path.clone(), source })?;
    let token = text.trim();
    let value = HeaderValue::try_from(format!("Bearer {token}")).ok().filter(|_| !token.is_empty());
    let mut value = value.ok_or_else(|| AskError::Token { path: path.clone() })?;
    value.set_sensitive(true);
    Ok(value)
}

async fn exchange<S>(api: &KubeletApi, stream: S, token: Option<HeaderValue>) -> Result<Bytes, AskError>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let (mut sender, connection) = handshake(TokioIo::new(stream)).await.map_err(AskError::Http)?;
    // Its task ends with `sender` and the answer.
    tokio::spawn(connection);
    let mut request = Request::new(Empty::<Bytes>::new());
    *request.uri_mut() = hyper::Uri::from_static("/pods");
    let headers = request.headers_mut();
    headers.insert(HOST, api.authority.clone());
    headers.insert(USER_AGENT, HeaderValue::from_static(concat!("plumbline/", env!("CARGO_PKG_VERSION"))));
    headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
    if let Some(token) = token {
        headers.insert(AUTHORIZATION, token);
    }
    let response = sender.send_request(request).await.map_err(AskError::Http)?;
    if response.status() != StatusCode::OK {
        return Err(AskError::Status(response.status()));
    }
    let body = Limited::new(response.into_body(), ANSWER_BYTES).collect().await;
    body.map(http_body_util::Collected::to_bytes).map_err(|error| AskError::Body(error.to_string()))
}
