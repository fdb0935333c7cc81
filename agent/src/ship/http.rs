//! A receiver over HTTP/1.1: one connection, kept while it serves, one request at a time, a bounded answer.
//!
//! No redirect is followed and nothing is retried here. TLS is not spoken: the receiver is a collector on the node or
//! behind something that speaks it.

use std::time::Duration;

use http_body_util::{BodyExt as _, Full, Limited};
use hyper::{
    Request, Response, StatusCode, Uri,
    body::{Bytes, Incoming},
    client::conn::http1::{SendRequest, handshake},
    header::{CONTENT_TYPE, HOST, HeaderName, HeaderValue, RETRY_AFTER, USER_AGENT},
};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use thiserror::Error;
use tokio::net::TcpStream;

/// From the start of connecting to the last byte of the answer; what OTLP exporters allow by default.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Answers are a few bytes; what is longer is not read.
const ANSWER_BYTES: usize = 64 << 10;

/// Where a receiver listens: `http://HOST[:PORT][/PATH]`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Endpoint {
    host: String,
    port: u16,
    /// Host and port as they were written.
    authority: HeaderValue,
    /// Without a slash at its end.
    path: String,
}

/// What is wrong with an endpoint, and what would be right.
#[derive(Debug, PartialEq, Eq, Error)]
pub enum EndpointError {
    #[error("endpoint {0:?}: expected http://HOST[:PORT][/PATH]")]
    Form(String),
    #[error("endpoint {0:?}: expected http, because TLS is not supported; send to a collector on this node")]
    Tls(String),
    // Does not repeat the endpoint: a password has no place in a log.
    #[error("endpoint with a user or password: expected none")]
    Credentials,
}

impl TryFrom<String> for Endpoint {
    type Error = EndpointError;

    fn try_from(text: String) -> Result<Self, EndpointError> {
        let Ok(uri) = text.parse::<Uri>() else { return Err(EndpointError::Form(text)) };
        if uri.authority().is_some_and(|authority| authority.as_str().contains('@')) {
            return Err(EndpointError::Credentials);
        }
        match uri.scheme_str() {
            Some("http") if uri.query().is_none() => {}
            Some("https") => return Err(EndpointError::Tls(text)),
            _ => return Err(EndpointError::Form(text)),
        }
        let Some(authority) = uri.authority() else { return Err(EndpointError::Form(text)) };
        let port = match authority.as_str().strip_prefix(authority.host()) {
            Some("") => Some(80),
            _ => authority.port_u16().filter(|&port| port != 0),
        };
        // IPv6 stands in brackets in a URL and without them in an address.
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
        let (Some(port), Ok(authority), false) = (port, authority.as_str().parse(), host.is_empty()) else {
            return Err(EndpointError::Form(text));
        };
        Ok(Self { host, port, authority, path: uri.path().trim_end_matches('/').to_owned() })
    }
}

/// Why a request is not known to have arrived.
#[derive(Debug, Error)]
pub(super) enum SendError {
    #[error("connecting to {host}:{port}")]
    Connect { host: String, port: u16, source: std::io::Error },
    #[error("no whole answer within {TIMEOUT:?}")]
    Timeout,
    #[error("speaking HTTP with the receiver")]
    Http(#[source] hyper::Error),
    #[error("the receiver answered {status}, not 2xx")]
    Refused { status: StatusCode, retry_after: Option<Duration>, answer: Bytes },
}

impl SendError {
    /// How long the receiver asked to be left alone.
    pub(super) fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Refused { retry_after, .. } => *retry_after,
            _ => None,
        }
    }
}

#[derive(Debug)]
pub(super) struct Client {
    endpoint: Endpoint,
    connection: Option<SendRequest<Full<Bytes>>>,
}

impl Client {
    pub(super) fn new(endpoint: Endpoint) -> Self {
        Self { endpoint, connection: None }
    }

    /// Posts protobuf to a path behind the endpoint's; the body of a 2xx answer.
    pub(super) async fn post(&mut self, path: &str, body: Bytes) -> Result<Bytes, SendError> {
        self.post_with(path, body, &[(CONTENT_TYPE, HeaderValue::from_static("application/x-protobuf"))]).await
    }

    /// Posts anything, with these headers beside those of HTTP itself.
    pub(super) async fn post_with(
        &mut self,
        path: &str,
        body: Bytes,
        headers: &[(HeaderName, HeaderValue)],
    ) -> Result<Bytes, SendError> {
        let mut request = self.request(path, body);
        request.headers_mut().extend(headers.iter().cloned());
        tokio::time::timeout(TIMEOUT, self.exchange(request)).await.unwrap_or(Err(SendError::Timeout))
    }

    async fn exchange(&mut self, request: Request<Full<Bytes>>) -> Result<Bytes, SendError> {
        // Taken out, so that a connection on which something went wrong is never used again.
        let mut connection = match self.connection.take() {
            Some(connection) if !connection.is_closed() => connection,
            _ => self.connect().await?,
        };
        connection.ready().await.map_err(SendError::Http)?;
        let response = connection.send_request(request).await.map_err(SendError::Http)?;
        let (status, retry_after) = (response.status(), retry_after(&response));
        // The status line is the acknowledgement; an answer that ends early or never takes nothing back.
        let answer = Limited::new(response.into_body(), ANSWER_BYTES).collect().await;
        let answer = answer.map(|whole| {
            self.connection = Some(connection);
            whole.to_bytes()
        });
        if status.is_success() {
            Ok(answer.unwrap_or_default())
        } else {
            Err(SendError::Refused { status, retry_after, answer: answer.unwrap_or_default() })
        }
    }

    async fn connect(&self) -> Result<SendRequest<Full<Bytes>>, SendError> {
        let Endpoint { host, port, .. } = &self.endpoint;
        let stream = TcpStream::connect((host.as_str(), *port)).await.map_err(|source| SendError::Connect {
            host: host.clone(),
            port: *port,
            source,
        })?;
        let (sender, connection) = handshake(TokioIo::new(stream)).await.map_err(SendError::Http)?;
        // Its task ends when `sender` is dropped or the receiver hangs up.
        tokio::spawn(connection);
        Ok(sender)
    }

    fn request(&self, path: &str, body: Bytes) -> Request<Full<Bytes>> {
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = hyper::Method::POST;
        *request.uri_mut() =
            format!("{}{path}", self.endpoint.path).parse().expect("the endpoint's path was read from a URI");
        let headers = request.headers_mut();
        headers.insert(HOST, self.endpoint.authority.clone());
        headers.insert(USER_AGENT, HeaderValue::from_static(concat!("plumbline/", env!("CARGO_PKG_VERSION"))));
        request
    }
}

/// The form in seconds; the one with a date is left to the exporter's own pace.
fn retry_after(response: &Response<Incoming>) -> Option<Duration> {
    let seconds = response.headers().get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds))
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::TcpListener,
    };

    use super::*;

    #[expect(clippy::needless_pass_by_value, reason = "expect! makes a value")]
    fn read(text: &str, expect: Expect) {
        let said = match Endpoint::try_from(text.to_owned()) {
            Ok(endpoint) => format!("{} {} {:?}", endpoint.host, endpoint.port, endpoint.path),
            Err(error) => error.to_string(),
        };
        expect.assert_eq(&said);
    }

    #[test]
    fn an_endpoint_is_a_plain_http_url() {
        read("http://127.0.0.1:4318", expect![[r#"127.0.0.1 4318 """#]]);
        read("http://collector/base/", expect![[r#"collector 80 "/base""#]]);
        read("http://[::1]:4318/", expect![[r#"::1 4318 """#]]);
    }

    #[test]
    fn anything_else_is_refused_with_what_would_be_right() {
        read(
            "https://collector",
            expect![[
                r#"endpoint "https://collector": expected http, because TLS is not supported; send to a collector on this node"#
            ]],
        );
        read("127.0.0.1:4318", expect![[r#"endpoint "127.0.0.1:4318": expected http://HOST[:PORT][/PATH]"#]]);
        read("http://collector:0", expect![[r#"endpoint "http://collector:0": expected http://HOST[:PORT][/PATH]"#]]);
        read("http://a/?q=1", expect![[r#"endpoint "http://a/?q=1": expected http://HOST[:PORT][/PATH]"#]]);
        read("http://user:secret@collector", expect!["endpoint with a user or password: expected none"]);
        read("", expect![[r#"endpoint "": expected http://HOST[:PORT][/PATH]"#]]);
    }

    /// Sends as often as there are answers, each on whatever connection the client uses; what it says, and how many
    /// connections it took.
    async fn talk(answers: &[&'static str]) -> (Vec<String>, usize) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let mut script = answers.to_vec();
        script.reverse();
        let receiver = tokio::spawn(async move {
            let mut connections = 0;
            while !script.is_empty() {
                let (mut stream, _) = listener.accept().await.unwrap();
                connections += 1;
                while !script.is_empty() {
                    let mut request = [0; 1024];
                    let Ok(1..) = stream.read(&mut request).await else { break };
                    let answer = script.pop().unwrap();
                    stream.write_all(answer.as_bytes()).await.unwrap();
                    if answer.contains("close") {
                        break;
                    }
                }
            }
            connections
        });
        let mut client = Client::new(endpoint.try_into().unwrap());
        let mut said = Vec::new();
        for _ in answers {
            said.push(match client.post("/v1/logs", Bytes::from_static(b"x")).await {
                Ok(body) => format!("ok {:?}", String::from_utf8_lossy(&body)),
                Err(error) => format!("{error}, retry after {:?}", error.retry_after()),
            });
        }
        (said, receiver.await.unwrap())
    }

    #[expect(clippy::needless_pass_by_value, reason = "expect! makes a value")]
    fn check(answers: &[&'static str], expect: Expect) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let (said, connections) = runtime.block_on(talk(answers));
        expect.assert_eq(&format!("{}\n{connections} connections\n", said.join("\n")));
    }

    #[test]
    fn only_a_2xx_is_an_acknowledgement() {
        check(
            &[
                "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi",
                "HTTP/1.1 503 No\r\nretry-after: 7\r\ncontent-length: 0\r\n\r\n",
                "HTTP/1.1 301 Moved\r\nlocation: /elsewhere\r\ncontent-length: 0\r\n\r\n",
                "HTTP/1.1 400 Bad\r\ncontent-length: 0\r\n\r\n",
            ],
            expect![[r#"
                ok "hi"
                the receiver answered 503 Service Unavailable, not 2xx, retry after Some(7s)
                the receiver answered 301 Moved Permanently, not 2xx, retry after None
                the receiver answered 400 Bad Request, not 2xx, retry after None
                1 connections
            "#]],
        );
    }

    #[test]
    fn a_connection_that_ended_is_replaced_and_half_an_answer_after_2xx_still_acknowledges() {
        check(
            &[
                "HTTP/1.1 200 OK\r\ncontent-length: 9\r\nconnection: close\r\n\r\nhalf",
                "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n",
            ],
            expect![[r#"
                ok ""
                ok ""
                2 connections
            "#]],
        );
        check(
            &["nonsense, close\r\n\r\n", "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"],
            expect![[r#"
            speaking HTTP with the receiver, retry after None
            ok ""
            2 connections
        "#]],
        );
    }
}
