//! What the daemon says that it sees: at the start, and when somebody takes a program away.
#![expect(unsafe_code, reason = "bpf(2) has no safe library for taking other people's links away")]

use std::{fs, path::Path, process::Command, time::Duration};

use serde_json::Value;

use super::{QUIET, Spine, ensure, not_ok, skipped};
use crate::{
    checks::Ended,
    daemon::{Tools, run},
};

/// A statement of this cause.
fn statement(spine: &Spine, cause: &str) -> Result<Value, Ended> {
    let wanted = format!("a coverage statement of {cause}");
    let found = spine.daemon.wait_for_record_within(Duration::from_secs(30), &wanted, |record| {
        let own = &record["unmapped"]["plumbline"];
        own["kind"] == "coverage" && own["cause"].as_str().is_some_and(|text| text.contains(cause))
    });
    found.map_err(not_ok)
}

pub(super) fn the_start_says_what_is_seen(tools: &Tools, scratch: &Path) -> Result<(), Ended> {
    let spine = Spine::start_with(tools, scratch, QUIET)?;
    let statement = statement(&spine, "start")?;
    let own = &statement["unmapped"]["plumbline"];
    let words = |table: &str, name: &str| own[table][name].as_str().unwrap_or_default().to_owned();
    ensure(words("hooks", "exec").starts_with("attached"), || format!("exec: {}", words("hooks", "exec")))?;
    ensure(words("hooks", "canary").starts_with("proves"), || format!("canary: {}", words("hooks", "canary")))?;
    ensure(!words("host", "release").is_empty(), || "no kernel release".to_owned())?;
    // No machine sees RDMA.
    ensure(!words("blind", "RDMA").is_empty(), || format!("not declared: RDMA, in {}", own["blind"]))?;
    let silent: Vec<&str> = own["hooks"]
        .as_object()
        .into_iter()
        .flatten()
        .filter_map(|(name, state)| state.as_str().filter(|state| state.contains("SILENT")).map(|_| name.as_str()))
        .collect();
    ensure(silent.is_empty(), || format!("silent from the start: {silent:?}"))
}

pub(super) fn a_renamed_directory_stays_watched(tools: &Tools, scratch: &Path) -> Result<(), Ended> {
    let spine = Spine::start_with(tools, scratch, QUIET)?;
    let (before, after) = (spine.models.clone(), scratch.join("elsewhere"));
    fs::rename(&before, &after).map_err(not_ok)?;
    let statement = statement(&spine, "the watched directories")?;
    let watched = statement["unmapped"]["plumbline"]["watched"].to_string();
    ensure(watched.contains("still watched by inode"), || watched.clone())?;
    // Not even a file that was not there before.
    let file = after.join("new.safetensors");
    fs::write(&file, b"weights").map_err(not_ok)?;
    run(Command::new("cat").arg(&file)).map_err(not_ok)?;
    let open = spine.open_of(&file).map_err(not_ok)?;
    ensure(open["is_alert"] == true, || open.to_string())
}

pub(super) fn a_detached_program_is_noticed(tools: &Tools, scratch: &Path) -> Result<(), Ended> {
    let spine = Spine::start_with(tools, scratch, QUIET)?;
    let hook = "plumbline_hook_attached{hook=\"udp_connect\"";
    if !spine.daemon.metrics().map_err(not_ok)?.contains(&format!("{hook},rung=\"cgroup\"}} 1")) {
        return Err(skipped("the only links that can be taken away are those of cgroups, and none is attached here"));
    }
    let detached = detach_links("udp_connect").map_err(not_ok)?;
    ensure(detached >= 2, || format!("{detached} links were taken away"))?;
    let statement = statement(&spine, "udp_connect fell silent")?;
    let state = &statement["unmapped"]["plumbline"]["hooks"]["udp_connect"];
    ensure(state.as_str().is_some_and(|state| state.starts_with("SILENT")), || state.to_string())?;
    spine.daemon.wait_for(hook, |up| up == 0.0).map_err(not_ok)?;
    // The others are still heard.
    spine.daemon.wait_for("plumbline_hook_attached{hook=\"tcp_connect\"", |up| up > 0.0).map(drop).map_err(not_ok)
}

/// Takes away every cgroup link whose program's name starts like this; how many there were. The numbers of commands and the
/// places of fields are those of include/uapi/linux/bpf.h.
fn detach_links(program: &str) -> std::io::Result<usize> {
    const PROG_GET_FD_BY_ID: i32 = 13;
    const OBJ_GET_INFO_BY_FD: i32 = 15;
    const LINK_GET_FD_BY_ID: i32 = 30;
    const LINK_GET_NEXT_ID: i32 = 31;
    const LINK_DETACH: i32 = 34;
    const LINK_TYPE_CGROUP: u32 = 3;
    let mut detached = 0;
    let mut id = 0u32;
    loop {
        let mut next = [id, 0, 0, 0];
        if bpf(LINK_GET_NEXT_ID, &mut next).is_err() {
            return Ok(detached);
        }
        id = next[1];
        let Ok(link) = bpf(LINK_GET_FD_BY_ID, &mut [id, 0, 0, 0]) else { continue };
        let mut info = [0u32; 16];
        let about = info_of(OBJ_GET_INFO_BY_FD, link, &mut info);
        // `struct bpf_link_info`: type, id, prog_id.
        if about.is_ok() && info[0] == LINK_TYPE_CGROUP {
            let mut named = [0u32; 64];
            let owner = bpf(PROG_GET_FD_BY_ID, &mut [info[2], 0, 0, 0])?;
            info_of(OBJ_GET_INFO_BY_FD, owner, &mut named)?;
            close(owner);
            // `struct bpf_prog_info.name` is at byte 64.
            let name: Vec<u8> = named[16..20].iter().flat_map(|word| word.to_ne_bytes()).collect();
            if name.starts_with(program.as_bytes()) {
                bpf(LINK_DETACH, &mut [link.cast_unsigned(), 0, 0, 0])?;
                detached += 1;
            }
        }
        close(link);
    }
}

fn info_of(command: i32, fd: i32, info: &mut [u32]) -> std::io::Result<i32> {
    let at = info.as_mut_ptr().expose_provenance() as u64;
    let bytes = u32::try_from(size_of_val(info)).unwrap_or(0);
    let [low, high] = [at, at >> 32].map(|word| u32::try_from(word & 0xffff_ffff).unwrap_or(0));
    bpf(command, &mut [fd.cast_unsigned(), bytes, low, high])
}

fn bpf(command: i32, attributes: &mut [u32; 4]) -> std::io::Result<i32> {
    // SAFETY: the attributes are longer than what each of the commands above reads, and point to memory that lives on.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, attributes.as_mut_ptr(), 16) };
    i32::try_from(result).ok().filter(|result| *result >= 0).ok_or_else(std::io::Error::last_os_error)
}

fn close(fd: i32) {
    // SAFETY: a descriptor that was made above, closed once.
    unsafe { libc::close(fd) };
}
