//! The life of a process: fork, exec, exit, and the table of those that run.

use std::{
    fs::{self, File},
    io::Write as _,
    os::unix::ffi::OsStrExt as _,
    process::Command,
};

use plumbline::event::{Event, What};

use super::{is_me, same, this_process};
use crate::bench::{Bench, Outcome};

pub(super) fn life_of_a_process(bench: &mut Bench) -> Outcome {
    bench.drain();
    // This very binary, told to exit with a code of its own.
    let exe = std::env::current_exe().map_err(|error| error.to_string())?;
    let status = Command::new(&exe).arg("exit-with-7").status().map_err(|error| error.to_string())?;
    same("exit code", &status.code(), &Some(7))?;
    let child = bench.expect("the fork", |event| match &event.what {
        What::Fork(fork) if event.task.as_ref().is_some_and(is_me) => Some(fork.child_pid),
        _ => None,
    })?;
    let of_child = move |event: &Event| event.task.clone().filter(|task| task.pid == child);
    let (task, ran) = bench.expect("the exec", |event| match &event.what {
        What::Exec(exec) => Some((of_child(event)?, exec.clone())),
        _ => None,
    })?;
    let arguments = [exe.as_os_str().as_bytes(), b"\0exit-with-7\0"].concat();
    same("arguments", &ran.arguments, &arguments)?;
    same("arguments truncated", &ran.arguments_truncated, &false)?;
    same("capabilities", &format!("{:016x}", ran.capabilities), &own_status("CapEff:")?)?;
    let loginuid = fs::read_to_string("/proc/self/loginuid").ok().and_then(|text| text.trim().parse::<u32>().ok());
    same("loginuid", &ran.loginuid, &loginuid.filter(|uid| *uid != u32::MAX))?;
    same("deleted", &ran.deleted, &false)?;
    same(
        "executable",
        &ran.exe,
        &fs::canonicalize(&exe).map_err(|error| error.to_string())?.as_os_str().as_bytes().to_vec(),
    )?;
    same("parent", &task.ppid, &std::process::id())?;
    let code = bench.expect("the exit", |event| match &event.what {
        What::Exit(exit) => of_child(event).map(|_| exit.code),
        _ => None,
    })?;
    same("exit status", &code, &(7 << 8))
}

/// A memfd that runs, and arguments longer than a record carries.
pub(super) fn a_program_without_a_name(bench: &mut Bench) -> Outcome {
    let text = |error: std::io::Error| error.to_string();
    let flags = rustix::fs::MemfdFlags::empty();
    let memfd = rustix::fs::memfd_create("payload", flags).map_err(|error| error.to_string())?;
    let mut file = File::from(memfd);
    file.write_all(&fs::read("/proc/self/exe").map_err(text)?).map_err(text)?;
    let path = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&file));
    rustix::io::fcntl_setfd(&file, rustix::io::FdFlags::empty()).map_err(|error| error.to_string())?;
    // Written to and executed at once is refused, so the writer goes first.
    let reader = File::open(&path).map_err(text)?;
    rustix::io::fcntl_setfd(&reader, rustix::io::FdFlags::empty()).map_err(|error| error.to_string())?;
    drop(file);
    let path = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&reader));
    let child = Command::new(path).arg("exit-with-7").arg("x".repeat(2000)).status().map_err(text)?;
    same("exit code", &child.code(), &Some(7))?;
    let ran = bench.expect("the exec of a memfd", |event| match &event.what {
        What::Exec(exec) if exec.deleted => Some(exec.clone()),
        _ => None,
    })?;
    same("executable", &String::from_utf8_lossy(&ran.exe).into_owned(), &"/memfd:payload".to_owned())?;
    same("arguments truncated", &ran.arguments_truncated, &true)?;
    // Of the long one, nothing is kept: what follows its first part may complete a secret.
    same("whole arguments", &ran.arguments.ends_with(b"\0exit-with-7\0"), &true)
}

fn own_status(name: &str) -> Result<String, String> {
    let status = fs::read_to_string("/proc/self/status").map_err(|error| error.to_string())?;
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    line.map(|value| value.trim().to_owned()).ok_or_else(|| format!("no {name} in /proc/self/status"))
}

pub(super) fn iterator(bench: &mut Bench) -> Outcome {
    // As often as it is asked.
    bench.probes().tasks()?;
    let tasks = bench.probes().tasks()?;
    let me = tasks.iter().find(|task| task.pid == std::process::id()).ok_or("this process is not among them")?;
    same("number of processes", &(tasks.len() > 1), &true)?;
    this_process(me)
}
