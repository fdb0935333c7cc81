//! The GPU's memory: what of it is taken.

use super::{ALL, Question, Round, exact, getter, known_wide, measure};
use crate::series::gpu::memory::{MEMORY_FREE_BYTES, MEMORY_RESERVED_BYTES, MEMORY_TOTAL_BYTES, MEMORY_USED_BYTES};

pub(super) static QUESTIONS: &[Question] = &[getter(
    "nvmlDeviceGetMemoryInfo_v2",
    Round::Light,
    ALL,
    &[(&MEMORY_USED_BYTES, ""), (&MEMORY_FREE_BYTES, ""), (&MEMORY_RESERVED_BYTES, ""), (&MEMORY_TOTAL_BYTES, "")],
    |gpu| {
        let memory = gpu.device.memory_info()?;
        Ok(vec![
            measure(&MEMORY_USED_BYTES, exact(known_wide(memory.used)?)),
            measure(&MEMORY_FREE_BYTES, exact(known_wide(memory.free)?)),
            measure(&MEMORY_RESERVED_BYTES, exact(known_wide(memory.reserved)?)),
            measure(&MEMORY_TOTAL_BYTES, exact(known_wide(memory.total)?)),
        ])
    },
)];
