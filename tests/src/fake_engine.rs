//! A serving engine that speaks llama.cpp's dialect and generates exactly the tokens it is told to: what a price can be
//! checked against by hand. Simulated; it says so in a comment of its page.

use std::{
    net::{SocketAddr, TcpListener},
    os::unix::net::UnixListener,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

#[derive(Debug)]
pub struct FakeEngine {
    pub address: SocketAddr,
    stop: Arc<AtomicBool>,
    tokens: Arc<AtomicU64>,
    thread: Option<JoinHandle<()>>,
}

impl FakeEngine {
    /// What it has generated before anybody looks: a lifetime total that is nobody's window.
    pub const BEFORE: u64 = 100;

    pub fn start() -> std::io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let tokens = Arc::new(AtomicU64::new(Self::BEFORE));
        let generated = Arc::clone(&tokens);
        let thread = std::thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                match listener.accept() {
                    Ok((stream, _)) => drop(answer(stream, generated.load(Ordering::Relaxed))),
                    Err(_) => std::thread::sleep(Duration::from_millis(2)),
                }
            }
        });
        Ok(Self { address, stop, tokens, thread: Some(thread) })
    }

    /// Generates so many tokens, now.
    pub fn generate(&self, tokens: u64) {
        self.tokens.fetch_add(tokens, Ordering::Relaxed);
    }
}

impl Drop for FakeEngine {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// An engine as a process of its own, until it is ended: `--host PATH` for a unix socket, or `--port PORT` at loopback;
/// with `--elsewhere` in a network namespace of its own.
pub fn serve_for_ever(arguments: &[String]) -> std::io::Result<()> {
    let value = |name: &str| arguments.iter().skip_while(|argument| *argument != name).nth(1);
    if arguments.iter().any(|argument| argument == "--elsewhere") {
        crate::bypass::own_network()?;
    }
    if let Some(path) = value("--host") {
        return UnixListener::bind(path)?.incoming().try_for_each(|stream| write_page(stream?, FakeEngine::BEFORE));
    }
    let port = value("--port").and_then(|port| port.parse().ok()).ok_or(std::io::ErrorKind::InvalidInput)?;
    TcpListener::bind(("127.0.0.1", port))?.incoming().try_for_each(|stream| write_page(stream?, FakeEngine::BEFORE))
}

fn answer(stream: std::net::TcpStream, tokens: u64) -> std::io::Result<()> {
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(Duration::from_secs(1)))?;
    write_page(stream, tokens)
}

/// Such a page.
pub fn page(tokens: u64) -> String {
    format!(
        "# simulated\n# TYPE llamacpp:prompt_tokens_total counter\nllamacpp:prompt_tokens_total {tokens}\n\
         # TYPE llamacpp:tokens_predicted_total counter\nllamacpp:tokens_predicted_total {tokens}\n\
         # TYPE llamacpp:requests_processing gauge\nllamacpp:requests_processing 1\n\
         # TYPE llamacpp:requests_deferred gauge\nllamacpp:requests_deferred 0\n"
    )
}

fn write_page(mut stream: impl std::io::Read + std::io::Write, tokens: u64) -> std::io::Result<()> {
    let mut request = [0; 4096];
    let _ = stream.read(&mut request)?;
    let page = page(tokens);
    let length = page.len();
    write!(
        stream,
        "HTTP/1.1 200 OK\r\nContent-Type: text/plain; version=0.0.4\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{page}"
    )
}
