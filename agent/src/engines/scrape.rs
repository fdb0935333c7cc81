//! One HTTP request for an engine's page.
//!
//! The engine serves users on the same event loop that answers us, so a scrape is one connection with one request,
//! closed after it (an open one would hold one of the few threads of llama.cpp's server); nothing is retried and no redirect is followed. The answer is foreign: connecting and reading
//! share one deadline, the body has a cap, and what is clearly no exposition is refused by its headers.

use std::{pin::pin, time::Duration};

use http_body_util::{BodyExt, Empty};
use hyper::body::{Body as _, Bytes, Incoming};
use hyper::header::{
    ACCEPT, ACCEPT_ENCODING, AUTHORIZATION, CONNECTION, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, HOST,
};
use hyper::header::{HeaderName, HeaderValue, TRANSFER_ENCODING, USER_AGENT};
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use plumbline_exposition::Format;

use super::access::{Access, MetricsUrl};
use super::connect::{ConnectError, connect};
use crate::trust;

/// Read at once. A usual page is as long, and a socket's buffer not much longer.
const READ_BYTES: usize = 64 * 1024;

/// Room for a usual page.
const USUAL_BYTES: usize = 256 * 1024;

/// What an engine may cost us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// From the start of connecting to the last byte.
    pub timeout: Duration,
    pub body_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { timeout: Duration::from_secs(2), body_bytes: 8 * 1024 * 1024 }
    }
}

/// A page as the engine sent it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    pub body: Vec<u8>,
    pub format: Format,
}

/// Why there is no page.
#[derive(Debug, thiserror::Error)]
pub enum ScrapeError {
    #[error(transparent)]
    Connect(#[from] ConnectError),
    #[error("no whole answer within {0:?}")]
    Timeout(Duration),
    #[error("speaking HTTP with the engine")]
    Http(#[source] hyper::Error),
    #[error("the engine answered {0}, not 200")]
    Status(StatusCode),
    #[error("the answer is {0:?}, not Prometheus text")]
    ContentType(String),
    #[error("the answer is encoded as {0:?}, though none was offered")]
    ContentEncoding(String),
    #[error("the answer is longer than {limit_bytes} bytes")]
    TooLong { limit_bytes: usize },
    #[error("the answer ends within a line")]
    Truncated,
    #[error("no dialect recognises the page")]
    Unrecognised,
}

impl ScrapeError {
    /// The label `reason`: one word out of a closed set.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Connect(ConnectError::Connect { .. } | ConnectError::Unix { .. }) => "connect",
            Self::Connect(ConnectError::Namespace(_)) => "namespace",
            Self::Connect(ConnectError::Trust(_)) => "credentials",
            Self::Connect(ConnectError::Handshake(_)) => "tls",
            Self::Timeout(_) => "timeout",
            Self::Http(_) => "http",
            Self::Status(_) => "status",
            Self::ContentType(_) => "content_type",
            Self::ContentEncoding(_) => "content_encoding",
            Self::TooLong { .. } => "too_long",
            Self::Truncated => "truncated",
            Self::Unrecognised => "unrecognised",
        }
    }

    /// The whole chain of causes in one line.
    pub fn to_line(&self) -> String {
        let mut line = self.to_string();
        let mut cause = std::error::Error::source(self);
        while let Some(error) = cause {
            line += &format!(": {error}");
            cause = error.source();
        }
        line
    }
}

/// Fetches the page.
pub async fn fetch(access: &Access, limits: Limits) -> Result<Page, ScrapeError> {
    match tokio::time::timeout(limits.timeout, exchange(access, limits.body_bytes)).await {
        Ok(outcome) => outcome,
        Err(_) => Err(ScrapeError::Timeout(limits.timeout)),
    }
}

async fn exchange(access: &Access, limit_bytes: usize) -> Result<Page, ScrapeError> {
    let token = match &access.token_file {
        Some(path) => Some(trust::bearer(path).await.map_err(ConnectError::Trust)?),
        None => None,
    };
    let stream = connect(access).await?;
    let (mut sender, connection) = hyper::client::conn::http1::Builder::new()
        .read_buf_exact_size(Some(READ_BYTES))
        .handshake(TokioIo::new(stream))
        .await
        .map_err(ScrapeError::Http)?;
    let answer = async {
        let response = sender.send_request(request(&access.url, token)).await.map_err(ScrapeError::Http)?;
        read_answer(response, limit_bytes).await
    };
    // In one task: to wake another for each piece of the answer costs more than to read it. What ends the connection is told by the
    // answer too.
    let mut answer = pin!(answer);
    tokio::select! {
        page = &mut answer => page,
        _ = connection => answer.await,
    }
}

async fn read_answer(response: Response<Incoming>, limit_bytes: usize) -> Result<Page, ScrapeError> {
    let format = check_head(&response)?;
    // Without either header the body ends where the connection does, be that its end or not.
    let has_end = [CONTENT_LENGTH, TRANSFER_ENCODING].iter().any(|name| response.headers().contains_key(name));
    let body = read_body(response.into_body(), limit_bytes).await?;
    if !has_end && body.last().is_some_and(|&byte| byte != b'\n') {
        return Err(ScrapeError::Truncated);
    }
    Ok(Page { body, format })
}

fn request(url: &MetricsUrl, token: Option<HeaderValue>) -> Request<Empty<Bytes>> {
    let uri = url.uri();
    let mut request = Request::new(Empty::new());
    let path = uri.path_and_query().map_or("/metrics", hyper::http::uri::PathAndQuery::as_str);
    *request.uri_mut() = path.parse().unwrap_or_default();
    let headers = request.headers_mut();
    if let Some(host) = uri.authority().and_then(|authority| authority.as_str().parse().ok()) {
        headers.insert(HOST, host);
    }
    if let Some(token) = token {
        headers.insert(AUTHORIZATION, token);
    }
    // Plain text first: an engine that is asked for OpenMetrics may answer with rewritten names.
    let accept = "text/plain;version=0.0.4, application/openmetrics-text;version=1.0.0;q=0.5, */*;q=0.1";
    for (name, value) in [
        (ACCEPT, accept),
        (ACCEPT_ENCODING, "identity"),
        (CONNECTION, "close"),
        (USER_AGENT, concat!("plumbline/", env!("CARGO_PKG_VERSION"))),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    request
}

fn check_head(response: &Response<Incoming>) -> Result<Format, ScrapeError> {
    if response.status() != StatusCode::OK {
        return Err(ScrapeError::Status(response.status()));
    }
    let header = |name: HeaderName| response.headers().get(name).map(|value| String::from_utf8_lossy(value.as_bytes()));
    if let Some(encoding) = header(CONTENT_ENCODING).filter(|encoding| !encoding.eq_ignore_ascii_case("identity")) {
        return Err(ScrapeError::ContentEncoding(shorten(&encoding)));
    }
    let content_type = header(CONTENT_TYPE).unwrap_or_default();
    let lower = content_type.to_ascii_lowercase();
    if lower.contains("json") || lower.contains("html") {
        return Err(ScrapeError::ContentType(shorten(&content_type)));
    }
    Ok(Format::from_content_type(&content_type))
}

/// Enough of a foreign header for an error message.
fn shorten(text: &str) -> String {
    text.chars().take(80).collect()
}

async fn read_body(mut incoming: Incoming, limit_bytes: usize) -> Result<Vec<u8>, ScrapeError> {
    // What the engine says of its length is believed up to a usual page's.
    let said = usize::try_from(incoming.size_hint().lower()).unwrap_or(USUAL_BYTES);
    let mut body = Vec::with_capacity(said.min(USUAL_BYTES));
    while let Some(frame) = incoming.frame().await {
        let Ok(data) = frame.map_err(ScrapeError::Http)?.into_data() else { continue };
        if body.len() + data.len() > limit_bytes {
            return Err(ScrapeError::TooLong { limit_bytes });
        }
        body.extend_from_slice(&data);
    }
    Ok(body)
}

#[cfg(test)]
mod tests;
