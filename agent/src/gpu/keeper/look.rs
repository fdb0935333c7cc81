//! One look at the GPUs, without a daemon.

use std::{path::Path, time::Duration};

use super::{
    View,
    fleet::Fleet,
    open_kernel_log,
    running::{Next, Program, Running},
};
use crate::{
    clock,
    gpu::{config::GpuConfig, nvml, release::ReleaseFiles, wire::Frame},
    halt::Halt,
};

/// How long `plumbline doctor` waits for the driver.
const LOOK_PATIENCE: Duration = Duration::from_secs(10);

/// For `plumbline doctor`, and `plumbline gpu` where no daemon runs: every GPU once, by a worker of its own.
pub fn look(config: &GpuConfig, program: &Path, state_dir: &Path) -> Result<View, String> {
    let program = Program { path: program.to_owned(), library: nvml::library(config) };
    let files = ReleaseFiles::new(state_dir);
    // Where there is no state directory to write to, nobody has released anything there.
    let lock = files.hold().is_ok().then_some(&files);
    let mut running = Running::start(&program, config.steady(), lock).map_err(|error| error.to_string())?;
    // Nobody halts this.
    let (_other_half, halt) = Halt::pair().map_err(|error| error.to_string())?;
    let mut fleet = Fleet::default();
    let mut driver = None;
    let looked = loop {
        let left = LOOK_PATIENCE.saturating_sub(running.started.elapsed());
        match running.next(&halt, left) {
            Next::Frame(Frame::Open { driver: told, count, .. }) => {
                fleet.open(&told, count, clock::boot_ns());
                driver = Some(told);
            }
            Next::Frame(Frame::Listed(identity)) => fleet.listed(identity, clock::boot_ns()),
            Next::Frame(Frame::Nameless { index, reason }) => {
                if let Some(reason) = fleet.nameless(index, &reason) {
                    break Err(reason);
                }
            }
            Next::Frame(Frame::Absent { reason }) => break Err(reason),
            Next::Frame(Frame::Reading(reading)) => drop(fleet.reading(reading)),
            Next::Frame(Frame::Lost { index, question }) => fleet.lost(index, &question),
            Next::Frame(Frame::Cost { .. } | Frame::Events { .. } | Frame::Event { .. }) => {}
            Next::Frame(Frame::DriverGone) => break Err("the driver is gone".to_owned()),
            Next::End => break Err("the process that asks the driver died".to_owned()),
            // What did answer is told.
            Next::Nothing if !fleet.is_empty() => break Ok(()),
            Next::Nothing => break Err(format!("the driver has not answered within {} s", LOOK_PATIENCE.as_secs())),
        }
        if fleet.is_complete() {
            break Ok(());
        }
    };
    let view = View {
        worker: "running".to_owned(),
        worker_pid: None,
        reason: None,
        driver,
        profile: "steady".to_owned(),
        unnamed: fleet.unnamed(),
        gpus: fleet.view(clock::boot_ns()),
        xids: Vec::new(),
        no_kernel_log: open_kernel_log(&config.kernel_log).err(),
        no_events: None,
        stuck_pids: Vec::new(),
    };
    // Stuck or not, nobody waits for it.
    drop(running.kill());
    looked.map(|()| view)
}
