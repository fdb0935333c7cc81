//! NCCL's RAS, where it listens: at the loopback address of the network namespace that its processes are in.

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path};

use serde_json::{Value, json};

use super::{QUIET, ensure, library, nccl::is, not_ok, skipped};
use crate::{
    caller::{COMM, Caller},
    checks::Ended,
    daemon::{Daemon, Tools},
};

/// As NCCL 2.28 writes it: six ranks, of which one is behind, one has failed, one is dead, one does not answer, and one has ended.
const REPORT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../agent/src/cuda/nccl/ras/testdata/status.json");

pub(super) fn what_ras_knows_is_asked_for(tools: &Tools, scratch: &Path) -> Result<(), Ended> {
    let libnccl = library(tools, "libfake_nccl.so", scratch.join("libnccl.so.2"))?;
    let program = tools.beside("nccl-caller").ok_or_else(|| skipped("nccl-caller is not built"))?;
    // A pod of its own, as far as the network goes.
    let within = scratch.join("within");
    let script = format!(
        "#!/bin/sh\nexec unshare --net sh -c 'ip link set lo up && exec {} \"$0\"' \"$1\"\n",
        program.display()
    );
    fs::write(&within, script).map_err(not_ok)?;
    fs::set_permissions(&within, fs::Permissions::from_mode(0o755)).map_err(not_ok)?;
    let mut caller = Caller::start("nccl-caller", &within, &libnccl)?;
    caller.call(&format!("ras {REPORT}"), "ok")?;
    let config = format!("{QUIET}cuda: {{nccl_ras: true}}\n");
    let daemon = Daemon::start(tools, scratch, &config).map_err(not_ok)?;
    for (state, ranks) in [("running", 2.0), ("failed", 1.0), ("dead", 1.0), ("unresponsive", 1.0), ("ending", 1.0)] {
        let labels = format!("comm=\"{COMM}\",state=\"{state}\"");
        daemon.wait_for(&caller.line("plumbline_nccl_ras_ranks", &labels), is(ranks)).map_err(not_ok)?;
    }
    let behind = caller.line("plumbline_nccl_ras_behind", &format!("comm=\"{COMM}\",rank=\"1\""));
    daemon.wait_for(&behind, is(1.0)).map_err(not_ok)?;
    let is_dead = |record: &Value| {
        record["finding_info"]["types"] == json!(["nccl.ras.lost"])
            && record["message"].as_str().is_some_and(|message| message.contains("rank 3"))
    };
    let said = daemon.wait_for_record("a rank that is dead", is_dead).map_err(not_ok)?;
    let expected = format!(
        "RAS of NCCL, asked by way of nccl-caller ({}), of communicator {COMM}: rank 2 (process 77 of 10.0.0.2) has failed: \
         remote_error; rank 3 (process 78 of 10.0.0.2) is dead",
        caller.pid()
    );
    ensure(said["message"] == expected, || said.to_string())
}
