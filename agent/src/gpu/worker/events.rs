//! What one GPU's driver tells by itself, on a thread that waits for it.

use std::time::Duration;

use nvml_wrapper::{Device, Nvml, error::NvmlError};

use super::Bench;
use crate::{
    clock,
    gpu::{
        raw::events::{EventSet, MIG_CHANGE, XID},
        wire::Frame,
    },
};

/// How long one wait takes; longer waits would not be worse.
const WAIT: Duration = Duration::from_secs(5);

/// Waits until the process ends, or the driver has nothing to tell any more.
pub fn run(bench: &Bench, index: u32, nvml: &'static Nvml, device: &Device<'static>) {
    let opened = EventSet::new(nvml).and_then(|set| set.register(device, XID | MIG_CHANGE).map(|()| set));
    let set = match opened {
        Ok(set) => {
            bench.say(&Frame::Events { index, refused: None });
            set
        }
        Err(error) => {
            bench.say(&Frame::Events { index, refused: Some(error.to_string()) });
            return;
        }
    };
    loop {
        match set.wait(WAIT) {
            Ok(Some(event)) => bench.say(&Frame::Event {
                index,
                boot_ns: clock::boot_ns(),
                kind: event.kind,
                data: event.data,
                instances: [event.gpu_instance, event.compute_instance],
            }),
            Ok(None) => {}
            // What is over for questions is told by them.
            Err(NvmlError::GpuLost | NvmlError::Uninitialized | NvmlError::DriverNotLoaded) => return,
            Err(error) => {
                bench.say(&Frame::Events { index, refused: Some(error.to_string()) });
                return;
            }
        }
    }
}
