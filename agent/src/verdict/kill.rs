//! Ending a process that a policy says is to be ended.
//!
//! Guard rails: never pid 1, never the daemon itself, never a process that only has the number of the one that acted. That
//! it is within the rule's subject is what the verdict says: a rule that kills without one is refused when it is read.

use plumbline_policy::{Effect, Verdict};
use rustix::{
    io::Errno,
    process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal},
};

use crate::{event::Task, identity::procfs::Processes};

/// What became of a process that was to be ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Killed {
    /// SIGKILL was sent to it.
    Sent,
    /// It had ended before.
    Gone,
    /// It is one that is never killed.
    Spared(&'static str),
    Failed(String),
}

impl Killed {
    /// The word of series and records.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Sent => "killed",
            Self::Gone => "gone",
            Self::Spared(_) => "spared",
            Self::Failed(_) => "failed",
        }
    }

    /// Why not, where there is more to say.
    pub fn why(&self) -> Option<&str> {
        match self {
            Self::Spared(why) => Some(why),
            Self::Failed(why) => Some(why),
            Self::Sent | Self::Gone => None,
        }
    }
}

/// Ends the process that acted, if the verdict says so.
pub fn carry_out(verdict: &Verdict, task: Option<&Task>, proc: &dyn Processes) -> Option<Killed> {
    let task = task.filter(|_| verdict.effect() == Some(Effect::Kill))?;
    Some(kill(task, proc))
}

fn kill(task: &Task, proc: &dyn Processes) -> Killed {
    if task.pid <= 1 {
        return Killed::Spared("it is pid 1");
    }
    if task.pid == std::process::id() {
        return Killed::Spared("it is the daemon itself");
    }
    let Some(pid) = i32::try_from(task.pid).ok().and_then(Pid::from_raw) else { return Killed::Gone };
    let descriptor = match pidfd_open(pid, PidfdFlags::empty()) {
        Ok(descriptor) => descriptor,
        Err(Errno::SRCH) => return Killed::Gone,
        Err(error) => return Killed::Failed(format!("pidfd_open: {error}")),
    };
    // Looked at after the descriptor was made, which names one process for ever: the number may be another's by now.
    if proc.look(task.pid, task.start_boot_ns).is_none() {
        return Killed::Gone;
    }
    match pidfd_send_signal(&descriptor, Signal::KILL) {
        Ok(()) => Killed::Sent,
        Err(Errno::SRCH) => Killed::Gone,
        Err(error) => Killed::Failed(format!("pidfd_send_signal: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use std::{os::unix::process::ExitStatusExt as _, process::Command};

    use super::*;
    use crate::identity::procfs::Procfs;

    fn task(pid: u32, start_boot_ns: u64) -> Task {
        Task { pid, start_boot_ns, ..Task::default() }
    }

    #[test]
    fn who_must_live_is_spared() {
        let proc = Procfs::default();
        assert_eq!(kill(&task(1, 0), &proc), Killed::Spared("it is pid 1"));
        assert_eq!(kill(&task(0, 0), &proc), Killed::Spared("it is pid 1"));
        assert_eq!(kill(&task(std::process::id(), 0), &proc), Killed::Spared("it is the daemon itself"));
        assert_eq!(kill(&task(u32::MAX, 0), &proc), Killed::Gone);
    }

    #[test]
    fn the_process_that_acted_is_ended_and_not_one_with_its_number() {
        let proc = Procfs::default();
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        let start_boot_ns = proc.look(child.id(), 0).unwrap().start_boot_ns;
        assert_eq!(kill(&task(child.id(), start_boot_ns + 1_000_000_000), &proc), Killed::Gone);
        assert!(child.try_wait().unwrap().is_none());
        assert_eq!(kill(&task(child.id(), start_boot_ns), &proc), Killed::Sent);
        assert_eq!(child.wait().unwrap().signal(), Some(9));
        assert_eq!(kill(&task(child.id(), start_boot_ns), &proc), Killed::Gone);
    }
}
