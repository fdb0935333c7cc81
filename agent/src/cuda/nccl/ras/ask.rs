//! What NCCL's RAS answers: lines of text over TCP, as `src/ras/client_support.cc` of NCCL 2.28 and newer has them.
//!
//! Each request is a line. `CLIENT PROTOCOL 2` is answered by `SERVER PROTOCOL n`; `TIMEOUT s` and `SET FORMAT json` by `OK`, or by
//! `ERROR: …` where RAS does not know them (JSON came with 2.28); `STATUS` by what is known of all communicators of the job, after which
//! RAS closes the connection. It asks all processes of the job, each for a few seconds at most.

use std::{
    io::{self, BufRead as _, BufReader, Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    time::{Duration, Instant},
};

/// Of one answer: some eight thousand ranks, in however many communicators.
const MOST_BYTES: u64 = 4 << 20;

/// Of one line before it.
const MOST_LINE_BYTES: u64 = 1024;

/// How long RAS may wait for each leg of its own.
const LEG_SECONDS: u64 = 3;

const CONNECT: Duration = Duration::from_secs(1);

/// For the whole of it.
const PATIENCE: Duration = Duration::from_secs(8);

/// Why nothing is known.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    #[error("nobody answers at {0}")]
    Connect(SocketAddr, #[source] io::Error),
    #[error("talking to NCCL's RAS")]
    Talk(#[from] io::Error),
    #[error("RAS says {0:?} to {1:?}; JSON is spoken since NCCL 2.28")]
    Refused(String, &'static str),
    #[error("RAS says more than {MOST_BYTES} bytes")]
    Long,
}

/// The report, in JSON. In the network namespace of the thread.
pub fn ask(address: SocketAddr) -> Result<Vec<u8>, AskError> {
    let deadline = Instant::now() + PATIENCE;
    let stream = TcpStream::connect_timeout(&address, CONNECT).map_err(|error| AskError::Connect(address, error))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let mut reader = BufReader::new(Patient { stream: &stream, deadline });
    for (request, answer) in [
        ("CLIENT PROTOCOL 2", "SERVER PROTOCOL "),
        (&format!("TIMEOUT {LEG_SECONDS}"), "OK"),
        ("SET FORMAT json", "OK"),
    ] {
        (&stream).write_all(format!("{request}\n").as_bytes())?;
        let mut line = Vec::new();
        reader.by_ref().take(MOST_LINE_BYTES).read_until(b'\n', &mut line)?;
        if !line.starts_with(answer.as_bytes()) {
            let said = String::from_utf8_lossy(line.trim_ascii_end()).into_owned();
            return Err(AskError::Refused(said, if answer == "OK" { "SET FORMAT json" } else { "CLIENT PROTOCOL 2" }));
        }
    }
    (&stream).write_all(b"STATUS\n")?;
    let mut report = Vec::new();
    reader.take(MOST_BYTES + 1).read_to_end(&mut report)?;
    if report.len() as u64 > MOST_BYTES { Err(AskError::Long) } else { Ok(report) }
}

/// Reads until the deadline, however little comes at a time.
struct Patient<'s> {
    stream: &'s TcpStream,
    deadline: Instant,
}

impl io::Read for Patient<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let rest = self.deadline.saturating_duration_since(Instant::now());
        if rest.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        self.stream.set_read_timeout(Some(rest))?;
        self.stream.read(buffer)
    }
}

#[cfg(test)]
mod tests {
    use std::{net::TcpListener, thread};

    use super::*;

    /// Who answers the lines one by one, and then says this and closes.
    #[track_caller]
    fn check(answers: &[&str], report: &[u8], expect: Result<&[u8], &str>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let asked = thread::scope(|scope| {
            scope.spawn(|| {
                let (stream, _) = listener.accept().unwrap();
                let mut lines = BufReader::new(&stream).lines();
                for answer in answers {
                    lines.next();
                    (&stream).write_all(answer.as_bytes()).unwrap();
                }
                match lines.next() {
                    Some(line) => assert_eq!(line.unwrap(), "STATUS"),
                    None => assert!(expect.is_err()),
                }
                // Who has heard enough hangs up.
                let _ = (&stream).write_all(report);
            });
            ask(address)
        });
        match (asked, expect) {
            (Err(error), Err(part)) => assert!(error.to_string().contains(part), "{error}"),
            (asked, expect) => {
                assert_eq!(asked.map_err(|error| error.to_string()), expect.map(<[u8]>::to_vec).map_err(str::to_owned));
            }
        }
    }

    const GOOD: [&str; 3] = ["SERVER PROTOCOL 2\n", "OK\n", "OK\n"];

    #[test]
    fn what_ras_says_is_read_to_its_end() {
        check(&GOOD, b"{}\n", Ok(b"{}\n"));
        check(&GOOD, b"", Ok(b""));
    }

    #[test]
    fn who_does_not_speak_json_or_is_no_ras_is_said() {
        check(
            &["SERVER PROTOCOL 2\n", "OK\n", "ERROR: Unknown command SET FORMAT json\n"],
            b"",
            Err("RAS says \"ERROR: Unknown command SET FORMAT json\" to \"SET FORMAT json\""),
        );
        check(&["HTTP/1.1 400 Bad Request\r\n"], b"", Err("RAS says \"HTTP/1.1 400 Bad Request\""));
        check(&[&"x".repeat(5000)], b"", Err("RAS says \"xxx"));
    }

    #[test]
    fn an_answer_without_an_end_is_too_long() {
        check(&GOOD, &vec![b' '; (4 << 20) + 9], Err("more than 4194304 bytes"));
    }
}
