//! Scraping engines that are down, slow, endless, or not engines at all.

use std::future::Future;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::*;

const LIMITS: Limits = Limits { timeout: Duration::from_millis(300), body_bytes: 10_000 };

/// A server for one request, which is read whole and returned.
async fn serve<F: Future<Output = ()>>(answer: impl FnOnce(TcpStream) -> F) -> (Result<Page, ScrapeError>, String) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("a bound address");
    let url = MetricsUrl::try_from(format!("http://{address}/metrics?model=x")).expect("a good url");
    let server = async {
        let (mut stream, _) = listener.accept().await.expect("the client connects");
        let mut request = Vec::new();
        while !request.ends_with(b"\r\n\r\n") {
            request.push(stream.read_u8().await.expect("a whole request"));
        }
        // A client that has had enough hangs up; that is no error of the server.
        let _ = tokio::time::timeout(Duration::from_secs(5), answer(stream)).await;
        String::from_utf8(request).expect("a request in ASCII")
    };
    let access = Access::plain(url);
    tokio::join!(fetch(&access, LIMITS), server)
}

async fn answer(bytes: &[u8]) -> Result<Page, ScrapeError> {
    serve(|mut stream| async move {
        let _ = stream.write_all(bytes).await;
    })
    .await
    .0
}

/// `reason: the whole message`, or the page.
fn say(outcome: Result<Page, ScrapeError>) -> String {
    match outcome {
        Ok(page) => format!("{:?} {}", page.format, String::from_utf8_lossy(&page.body)),
        Err(error) => format!("{}: {}", error.reason(), error.to_line()),
    }
}

#[tokio::test]
async fn a_page_is_fetched_with_one_plain_request() {
    let (page, request) = serve(|mut stream| async move {
        let head = "HTTP/1.1 200 OK\r\nContent-Type: text/plain; version=1.0.0\r\nContent-Length: 5\r\n\r\n";
        stream.write_all(format!("{head}up 1\n").as_bytes()).await.expect("the client reads");
    })
    .await;
    assert_eq!(say(page), "Text up 1\n");
    assert!(request.starts_with("GET /metrics?model=x HTTP/1.1\r\n"), "{request}");
    for header in
        ["host: 127.0.0.1:", "accept: text/plain;version=0.0.4", "accept-encoding: identity", "connection: close"]
    {
        assert!(request.contains(header), "{header} in {request}");
    }
}

#[tokio::test]
async fn chunked_and_openmetrics_pages_are_read() {
    let head = "HTTP/1.1 200 OK\r\nContent-Type: application/openmetrics-text; version=1.0.0\r\n";
    let page =
        answer(format!("{head}Transfer-Encoding: chunked\r\n\r\n5\r\nup 1\n\r\n6\r\n# EOF\n\r\n0\r\n\r\n").as_bytes())
            .await;
    assert_eq!(say(page), "OpenMetrics up 1\n# EOF\n");
}

#[tokio::test]
async fn an_engine_that_is_down_is_an_error() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let port = listener.local_addr().expect("a bound address").port();
    drop(listener);
    let url = MetricsUrl::try_from(format!("http://127.0.0.1:{port}")).expect("a good url");
    assert_eq!(
        say(fetch(&Access::plain(url), LIMITS).await),
        format!("connect: connecting to 127.0.0.1:{port}: Connection refused (os error 111)")
    );
}

#[tokio::test]
async fn an_engine_that_never_answers_costs_the_timeout_and_sees_us_hang_up() {
    let began = std::time::Instant::now();
    let (page, _) = serve(|mut stream| async move {
        let _ = stream.read_to_end(&mut Vec::new()).await;
    })
    .await;
    assert_eq!(say(page), "timeout: no whole answer within 300ms");
    assert!(began.elapsed() < Duration::from_secs(2), "the connection is left open");
}

#[tokio::test]
async fn an_engine_that_dribbles_costs_no_more_than_the_timeout() {
    let began = std::time::Instant::now();
    let (page, _) = serve(|mut stream| async move {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await;
        while stream.write_all(b"a").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    assert_eq!(say(page), "timeout: no whole answer within 300ms");
    assert!(began.elapsed() < Duration::from_secs(2), "the server saw the client hang up");
}

#[tokio::test]
async fn an_endless_body_is_cut_at_the_cap() {
    for head in ["HTTP/1.1 200 OK\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n"] {
        let (page, _) = serve(|mut stream| async move {
            let _ = stream.write_all(head.as_bytes()).await;
            while stream.write_all(&[b'a'; 4096]).await.is_ok() {}
        })
        .await;
        assert_eq!(say(page), "too_long: the answer is longer than 10000 bytes");
    }
}

#[tokio::test]
async fn what_is_no_exposition_is_refused_by_its_head() {
    for (head, expect) in [
        (
            "200 OK\r\nContent-Type: application/json",
            "content_type: the answer is \"application/json\", not Prometheus text",
        ),
        (
            "200 OK\r\nContent-Type: text/HTML; charset=utf-8",
            "content_type: the answer is \"text/HTML; charset=utf-8\", not Prometheus text",
        ),
        (
            "200 OK\r\nContent-Encoding: gzip",
            "content_encoding: the answer is encoded as \"gzip\", though none was offered",
        ),
        (
            "501 Not Implemented\r\nContent-Type: application/json",
            "status: the engine answered 501 Not Implemented, not 200",
        ),
        ("302 Found\r\nLocation: http://elsewhere/", "status: the engine answered 302 Found, not 200"),
    ] {
        assert_eq!(say(answer(format!("HTTP/1.1 {head}\r\nContent-Length: 2\r\n\r\n{{}}").as_bytes()).await), expect);
    }
}

#[tokio::test]
async fn half_a_page_is_no_page() {
    for (bytes, reason) in [
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nup 1\n\r\n", "http"),
        ("HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\nup 1\n", "http"),
        ("HTTP/1.1 200 OK\r\n\r\nup 1\nupp", "truncated"),
        ("HTTP/1.1 200 OK\r\nContent-Le", "http"),
        ("SSH-2.0-OpenSSH_9.2\r\n", "http"),
        ("", "http"),
    ] {
        let said = say(answer(bytes.as_bytes()).await);
        assert!(said.starts_with(&format!("{reason}: ")), "{bytes:?} -> {said}");
    }
    assert_eq!(say(answer(b"HTTP/1.1 200 OK\r\n\r\nup 1\n").await), "Text up 1\n");
}
