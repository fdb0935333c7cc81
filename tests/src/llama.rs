//! A real llama.cpp server on loopback, with real weights.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use crate::daemon::get;

/// Loading weights and generating take seconds on a small machine.
const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Debug)]
pub struct Llama {
    child: Child,
    address: SocketAddr,
}

impl Llama {
    /// Starts the server and waits until it has loaded its weights.
    pub fn start(server: &Path, weights: &Path) -> Result<Self, String> {
        let free = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
        let address = free.map_err(|error| error.to_string())?;
        let child = Command::new(server)
            .args([
                "--host",
                "127.0.0.1",
                "--port",
                &address.port().to_string(),
                "--metrics",
                "--ctx-size",
                "1024",
                "--threads",
                "2",
            ])
            .arg("--model")
            .arg(weights)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|error| format!("{}: {error}", server.display()))?;
        let mut llama = Self { child, address };
        let deadline = Instant::now() + PATIENCE;
        while get(address, "/health", "").is_err() {
            if Instant::now() > deadline || !matches!(llama.child.try_wait(), Ok(None)) {
                return Err("llama-server does not come up".to_owned());
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        Ok(llama)
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Generates so many tokens.
    pub fn complete(&self, tokens: u32) -> Result<(), String> {
        let body = format!(r#"{{"prompt":"The quick brown fox","n_predict":{tokens},"ignore_eos":true}}"#);
        let mut stream = TcpStream::connect(self.address).map_err(|error| error.to_string())?;
        stream.set_read_timeout(Some(PATIENCE)).map_err(|error| error.to_string())?;
        write!(
            stream,
            "POST /completion HTTP/1.0\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        )
        .map_err(|error| error.to_string())?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).map_err(|error| error.to_string())?;
        if answer.contains(" 200 ") { Ok(()) } else { Err(answer.lines().next().unwrap_or_default().to_owned()) }
    }

    /// The tokens that it has generated, from its own page.
    pub fn tokens(&self) -> Result<f64, String> {
        let page = get(self.address, "/metrics", "")?;
        let line = page.lines().find_map(|line| line.strip_prefix("llamacpp:tokens_predicted_total "));
        line.and_then(|number| number.trim().parse().ok()).ok_or_else(|| "no token counter on its page".to_owned())
    }
}

impl Drop for Llama {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
