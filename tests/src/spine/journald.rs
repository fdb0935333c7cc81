//! NCCL's warnings in journald: a real one, of its own mount namespace.

use std::{
    fs,
    io::Write as _,
    path::Path,
    process::{Child, ChildStdin, Command, Stdio},
};

use serde_json::{Value, json};

use super::{QUIET, ensure, nccl::is, not_ok, skipped, wait_until};
use crate::{
    checks::Ended,
    daemon::{Daemon, Tools},
};

const JOURNALD: &str = "/lib/systemd/systemd-journald";

/// Lines of the standard input become lines of the journal, whose files are in `$1`; it ends with them.
const SCRIPT: &str = r#"
mount -t tmpfs none /run && mount --bind "$1" /var/log || exit 9
mkdir -p /var/log/journal /run/systemd/journal /run/systemd/journald.conf.d
printf '[Journal]\nStorage=persistent\nReadKMsg=no\nAudit=no\nSeal=no\n' > /run/systemd/journald.conf.d/own.conf
touch /run/systemd/journal/flushed
/lib/systemd/systemd-journald & daemon=$!
for _ in $(seq 100); do [ -S /run/systemd/journal/stdout ] && break; sleep 0.1; done
systemd-cat -t engine || cat > /dev/null
kill $daemon
wait
"#;

/// It ends with this.
struct Journald {
    child: Child,
    lines: Option<ChildStdin>,
}

impl Journald {
    fn start(log: &Path) -> Result<Self, Ended> {
        let mut command = Command::new("unshare");
        command.args(["--mount", "--propagation", "private", "sh", "-c", SCRIPT, "sh"]).arg(log);
        let mut child = command.stdin(Stdio::piped()).spawn().map_err(not_ok)?;
        let lines = child.stdin.take();
        Ok(Self { child, lines })
    }

    fn write(&mut self, line: &str) -> Result<(), Ended> {
        let lines = self.lines.as_mut().ok_or_else(|| not_ok("no pipe"))?;
        writeln!(lines, "{line}").map_err(not_ok)
    }
}

impl Drop for Journald {
    fn drop(&mut self) {
        drop(self.lines.take());
        let _ = self.child.wait();
    }
}

pub(super) fn warnings_in_the_journal_are_told(tools: &Tools, scratch: &Path) -> Result<(), Ended> {
    if !Path::new(JOURNALD).exists() {
        return Err(skipped("there is no systemd-journald"));
    }
    let log = scratch.join("log");
    fs::create_dir_all(log.join("journal")).map_err(not_ok)?;
    let mut journald = Journald::start(&log)?;
    journald.write("an engine starts")?;
    let has_files = || {
        let machines = fs::read_dir(log.join("journal")).into_iter().flatten().filter_map(Result::ok);
        machines.into_iter().any(|machine| machine.path().join("system.journal").exists())
    };
    wait_until(has_files, "files of the journal")?;
    let config = format!("{QUIET}cuda: {{nccl_journal: {}}}\n", log.join("journal").display());
    let daemon = Daemon::start(tools, scratch, &config).map_err(not_ok)?;
    daemon.wait_for("plumbline_nccl_log_journal", is(1.0)).map_err(not_ok)?;
    // It follows from when it has begun to.
    let counted = "plumbline_nccl_warnings_total{place=\"misc/socket.cc:552\"}";
    let is_counted = || {
        let _ = journald.write("gpu-7:77:99 [1] misc/socket.cc:552 NCCL WARN Connection closed by peer");
        let _ = journald.write("gpu-7:77:99 [1] NCCL INFO nothing of it");
        daemon.metric(counted).is_ok_and(|count| count.is_some())
    };
    wait_until(is_counted, "a warning that is counted")?;
    let finding = |record: &Value| record["finding_info"]["types"] == json!(["nccl.warning"]);
    let said = daemon.wait_for_record("NCCL's warning", finding).map_err(not_ok)?.to_string();
    let text = "NCCL in process 77 of gpu-7, on its device 1: Connection closed by peer (misc/socket.cc:552)";
    ensure(said.contains(text), || said.clone())?;
    let told = daemon.records().map_err(not_ok)?.iter().filter(|record| finding(record)).count();
    ensure(told == 1, || format!("told {told} times"))
}
