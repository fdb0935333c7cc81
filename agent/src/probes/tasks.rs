//! Every process that already runs, from the task iterator.

use std::{io::Read as _, mem::size_of, path::PathBuf};

use aya::programs::{Iter, ProgramError};
use plumbline_ebpf::{record::Header, running::Running};
use zerocopy::FromBytes as _;

use super::{Probes, decode};
use crate::{
    event::{FileKey, Task},
    identity::{
        exe_name::{self, Whose},
        procfs::{Processes as _, Procfs},
    },
};

impl Probes {
    /// Reads the whole process table, as often as asked. An error means that lineage starts with what is seen from now on and what
    /// `/proc` says.
    pub fn tasks(&mut self) -> Result<Vec<Task>, String> {
        let bytes = self.iterate("tasks_iter")?;
        let tasks = bytes.chunks_exact(size_of::<Header>()).filter_map(|chunk| Header::read_from_bytes(chunk).ok());
        Ok(tasks.map(|header| decode::task(&header)).collect())
    }

    /// Which file each process runs, by its number in the initial pid namespace.
    fn running(&mut self) -> Result<Vec<(FileKey, u32)>, String> {
        let bytes = self.iterate("programs_iter")?;
        let running = bytes.chunks_exact(size_of::<Running>()).filter_map(|chunk| Running::read_from_bytes(chunk).ok());
        let key = |one: &Running| FileKey { dev: one.dev, ino: one.ino, generation: one.inode_generation };
        // Threads of the kernel run none.
        Ok(running.filter(|one| one.ino != 0).map(|one| (key(&one), one.pid)).collect())
    }

    /// The same by names that count. File systems are looked at: nobody must wait for it.
    pub fn running_by_name(&mut self) -> Result<Vec<(FileKey, Vec<u8>, Whose)>, String> {
        let proc = Procfs::default();
        let named = |(key, pid): (FileKey, u32)| {
            let is_contained = proc.look(pid, 0)?.cgroup.is_some_and(|cgroup| cgroup.is_contained());
            let running = exe_name::of_running(PathBuf::from(format!("/proc/{pid}")), is_contained)?;
            // It may run another by now.
            (running.ino == key.ino).then_some(())?;
            Some((key, running.path, running.whose?))
        };
        Ok(self.running()?.into_iter().filter_map(named).collect())
    }

    fn iterate(&mut self, name: &str) -> Result<Vec<u8>, String> {
        let program = self.ebpf.program_mut(name).ok_or("the object holds no task iterator")?;
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
        Ok(bytes)
    }
}
