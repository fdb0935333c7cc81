//! Every process that already runs, from the task iterator.

use std::{io::Read as _, mem::size_of};

use aya::programs::{Iter, ProgramError};
use plumbline_ebpf::record::Header;
use zerocopy::FromBytes as _;

use super::{Probes, decode};
use crate::event::Task;

impl Probes {
    /// Reads the whole process table, as often as asked. An error means that lineage starts with what is seen from now on and what
    /// `/proc` says.
    pub fn tasks(&mut self) -> Result<Vec<Task>, String> {
        let program = self.ebpf.program_mut("tasks_iter").ok_or("the object holds no task iterator")?;
        let program: &mut Iter = program.try_into().map_err(|error| format!("{error}"))?;
        match program.load("task", &self.btf) {
            Ok(()) | Err(ProgramError::AlreadyLoaded) => {}
            Err(error) => return Err(error.to_string()),
        }
        let link = program.attach().and_then(|id| program.take_link(id)).map_err(|error| format!("{error}"))?;
        let mut bytes = Vec::new();
        link.into_file()
            .map_err(|error| format!("{error}"))?
            .read_to_end(&mut bytes)
            .map_err(|error| format!("{error}"))?;
        let tasks = bytes.chunks_exact(size_of::<Header>()).filter_map(|chunk| Header::read_from_bytes(chunk).ok());
        Ok(tasks.map(|header| decode::task(&header)).collect())
    }
}
