//! A serving engine that speaks llama.cpp's dialect and generates exactly the tokens it is told to: what a price can be
//! checked against by hand. Simulated; it says so in a comment of its page.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener},
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

fn answer(mut stream: std::net::TcpStream, tokens: u64) -> std::io::Result<()> {
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(Duration::from_secs(1)))?;
    let mut request = [0; 4096];
    let _ = stream.read(&mut request)?;
    let page = format!(
        "# simulated\n# TYPE llamacpp:prompt_tokens_total counter\nllamacpp:prompt_tokens_total {tokens}\n\
         # TYPE llamacpp:tokens_predicted_total counter\nllamacpp:tokens_predicted_total {tokens}\n\
         # TYPE llamacpp:requests_processing gauge\nllamacpp:requests_processing 1\n\
         # TYPE llamacpp:requests_deferred gauge\nllamacpp:requests_deferred 0\n"
    );
    let length = page.len();
    write!(
        stream,
        "HTTP/1.1 200 OK\r\nContent-Type: text/plain; version=0.0.4\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{page}"
    )
}
