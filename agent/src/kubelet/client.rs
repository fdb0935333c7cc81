//! One question to the kubelet: `GET /pods` over a connection of its own, one deadline for all, a bounded answer.

use std::{io, sync::Arc, time::Duration};

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
use tokio_rustls::TlsConnector;

use super::config::KubeletApi;
use crate::trust::{self, TrustError};

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
    #[error(transparent)]
    Trust(#[from] TrustError),
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
    let connector = TlsConnector::from(Arc::new(trust::trusting(&api.ca_file, None).await?));
    let token = match &api.token_file {
        Some(path) => Some(trust::bearer(path).await?),
        None => None,
    };
    // The token is sent behind this, to who has proven to be the kubelet.
    let stream = connector.connect(api.server_name.clone(), stream).await.map_err(AskError::Handshake)?;
    exchange(api, stream, token).await
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
