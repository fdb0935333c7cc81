//! A line of NCCL's log that is a warning.
//!
//! NCCL writes `host:pid:tid [device] file.cc:line NCCL WARN message` (`ncclDebugLog` in its `src/debug.cc`); since 2.26 with the time in
//! brackets before it, and since 2.30 with the function in parentheses before `NCCL`. The number is the process's own, in its namespace.

use std::sync::LazyLock;

use memchr::memmem;
use regex::bytes::{Captures, Regex};
use serde::Deserialize;

/// Of a message; NCCL's own buffer holds 1024 bytes.
const MOST_BYTES: usize = 1024;

/// What a line says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Warning {
    pub host: String,
    pub pid: u32,
    pub device: u32,
    /// Where in NCCL's source, as `file:line`.
    pub place: String,
    pub message: String,
}

/// As Kubernetes' container runtimes keep a line (`TIME STREAM TAGS LINE`, kubelet's CRI log format), or as it was written.
static LINE: LazyLock<Option<Regex>> = LazyLock::new(|| {
    let line = concat!(
        r"^(?:\S+ (?:stdout|stderr) \S+ )?(?:\[[^\]]{1,64}\] )?",
        r"(?P<host>[^\s:]{1,255}):(?P<pid>\d{1,10}):\d{1,10} \[(?P<device>\d{1,5})\] ",
        r"(?P<place>[^:\s]{1,128}:\d{1,7}) (?:\([^)]{0,255}\) )?NCCL WARN (?P<message>(?s-u:.*))$",
    );
    Regex::new(line).ok()
});

impl Warning {
    /// `None` for what is no warning.
    pub fn of(line: &[u8]) -> Option<Self> {
        // Most lines are not.
        memmem::find(line, b" NCCL WARN ")?;
        let within = docker(line);
        let found = LINE.as_ref()?.captures(within.as_deref().unwrap_or(line))?;
        let number = |name| text(&found, name).parse().ok();
        Some(Self {
            host: text(&found, "host"),
            pid: number("pid")?,
            device: number("device")?,
            place: text(&found, "place"),
            message: text(&found, "message"),
        })
    }
}

/// What is within a line as Docker's driver `json-file` keeps it: `{"log":"…\n","stream":"stdout","time":"…"}`.
fn docker(line: &[u8]) -> Option<Vec<u8>> {
    #[derive(Deserialize)]
    struct Kept {
        log: String,
    }
    if !line.starts_with(br#"{"log":"#) {
        return None;
    }
    Some(serde_json::from_slice::<Kept>(line).ok()?.log.into_bytes())
}

/// Whoever writes the log may write anything.
fn text(found: &Captures<'_>, name: &str) -> String {
    let bytes = found.name(name).map_or(&[][..], |found| found.as_bytes());
    let text = String::from_utf8_lossy(&bytes[..bytes.len().min(MOST_BYTES)]);
    text.trim_end().chars().map(|char| if char.is_control() { ' ' } else { char }).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[track_caller]
    fn check(line: &[u8], expect: Option<(&str, u32, u32, &str, &str)>) {
        let found = Warning::of(line);
        let found = found
            .as_ref()
            .map(|found| (found.host.as_str(), found.pid, found.device, found.place.as_str(), found.message.as_str()));
        assert_eq!(found, expect, "{}", String::from_utf8_lossy(line));
    }

    const PEER: &str = "[Rem Allocator] Peer closed, errno 104";

    #[test]
    fn a_warning_is_read_in_each_of_its_shapes() {
        let expect = Some(("gpu-7", 4321, 3, "misc/socket.cc:552", PEER));
        // Up to 2.25, from 2.26 on, and from 2.30 on.
        check(format!("gpu-7:4321:4400 [3] misc/socket.cc:552 NCCL WARN {PEER}").as_bytes(), expect);
        check(
            format!("[2026-11-27 07:00:01] gpu-7:4321:4400 [3] misc/socket.cc:552 NCCL WARN {PEER}").as_bytes(),
            expect,
        );
        let line = format!(
            "[2026-11-27 07:00:01] gpu-7:4321:4400 [3] misc/socket.cc:552 (socketProgressOpt) NCCL WARN {PEER}\r"
        );
        check(line.as_bytes(), expect);
        check(format!("2026-11-27T07:00:01.123456789Z stdout F {line}").as_bytes(), expect);
        let kept = serde_json::json!({"log": format!("{line}\n"), "stream": "stdout", "time": "2026-11-27T07:00:01Z"});
        check(format!("{{\"log\":{},\"stream\":\"stdout\"}}", kept["log"]).as_bytes(), expect);
    }

    #[test]
    fn what_is_no_warning_is_none() {
        check(b"", None);
        check(b"gpu-7:4321:4400 [3] NCCL INFO Channel 00/24 : 0 1", None);
        check(b"an engine says: NCCL WARN is what NCCL says", None);
        check(b"gpu-7:99999999999:4400 [3] misc/socket.cc:552 NCCL WARN x", None);
        check(b"gpu-7:4294967296:4400 [3] misc/socket.cc:552 NCCL WARN x", None);
        check(br#"{"log":"gpu-7:1:1 [3] a.cc:1 NCCL WARN x"#, None);
        check(br#"{"log":7,"time":"gpu-7:1:1 [3] a.cc:1 NCCL WARN x"}"#, None);
    }

    #[test]
    fn what_is_no_text_is_made_some_and_does_not_go_on_for_ever() {
        check(b"h:1:2 [0] a.cc:1 NCCL WARN \xff\x1b[31m", Some(("h", 1, 0, "a.cc:1", "\u{fffd} [31m")));
        let long = [b"h:1:2 [0] a.cc:1 NCCL WARN ".to_vec(), vec![b'x'; 9000]].concat();
        assert_eq!(Warning::of(&long).map(|warning| warning.message.len()), Some(1024));
    }

    proptest! {
        #[test]
        fn no_line_is_too_much(line in prop::collection::vec(any::<u8>(), 0..200), at in 0..200_usize) {
            let mut whole = b"[t] h:1:2 [0] a.cc:1 (f) NCCL WARN m".to_vec();
            whole.splice(at.min(whole.len()).., line);
            let _ = Warning::of(&whole);
        }
    }
}
