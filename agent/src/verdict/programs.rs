//! Files that are run as programs, and by which paths rules know them.
//!
//! Where the host has a name for a file, no other counts.

use std::collections::{HashMap, hash_map::Entry};

use crate::{event::FileKey, identity::exe_name::Whose};

/// Files that are known as programs; others are to rules as if nobody knew their path.
const MAX_PROGRAMS: usize = 8192;

/// Programs that leave together, where there are as many as may be.
const LEAVE: usize = MAX_PROGRAMS / 8;

/// Paths of one program that are told apart.
const MAX_PATHS: usize = 16;

/// What is known of programs.
#[derive(Debug, Default)]
pub struct Programs {
    known: HashMap<FileKey, Program>,
    uses: u64,
    /// Some were forgotten that may still run.
    has_forgotten: bool,
}

#[derive(Debug)]
struct Program {
    paths: Vec<Vec<u8>>,
    whose: Whose,
    last_use: u64,
}

impl Programs {
    pub fn keys(&self) -> impl Iterator<Item = FileKey> {
        self.known.keys().copied()
    }

    /// By which it is known.
    pub fn paths(&self, key: FileKey) -> Vec<&[u8]> {
        self.known.get(&key).map(|program| program.paths.iter().map(Vec::as_slice).collect()).unwrap_or_default()
    }

    /// Whether it is known by this name.
    pub fn is_known_by(&self, key: FileKey, path: &[u8]) -> bool {
        self.known.get(&key).is_some_and(|program| program.paths.iter().any(|known| known == path))
    }

    /// Takes a name in; says whether rules know the file by others now than before.
    pub fn runs(&mut self, key: FileKey, path: Vec<u8>, whose: Whose) -> bool {
        self.uses += 1;
        match self.known.entry(key) {
            Entry::Vacant(entry) => {
                entry.insert(Program { paths: vec![path], whose, last_use: self.uses });
                true
            }
            Entry::Occupied(mut entry) => {
                let program = entry.get_mut();
                program.last_use = self.uses;
                if whose > program.whose {
                    (program.paths, program.whose) = (vec![path], whose);
                    return true;
                }
                let is_new =
                    whose == program.whose && !program.paths.contains(&path) && program.paths.len() < MAX_PATHS;
                if is_new {
                    program.paths.push(path);
                }
                is_new
            }
        }
    }

    /// Whether there is room for this one.
    pub fn is_full(&self, key: FileKey) -> bool {
        self.known.len() >= MAX_PROGRAMS && !self.known.contains_key(&key)
    }

    /// Makes room: those leave first of which no rule speaks, of those containers' before the host's, and those that were run longest ago. Returns them.
    pub fn make_room(&mut self, matters: impl Fn(FileKey) -> bool) -> Vec<FileKey> {
        let order = |(key, program): (&FileKey, &Program)| (matters(*key), program.whose, program.last_use, *key);
        let mut order: Vec<_> = self.known.iter().map(order).collect();
        order.sort_unstable_by_key(|(matters, whose, last_use, _)| (*matters, *whose, *last_use));
        order.truncate(LEAVE);
        let gone: Vec<FileKey> = order.into_iter().map(|(.., key)| key).collect();
        gone.iter().for_each(|key| drop(self.known.remove(key)));
        self.has_forgotten = true;
        gone
    }

    /// Whether programs were forgotten since this was asked last: those that still run can be told of anew.
    pub fn take_forgotten(&mut self) -> bool {
        std::mem::take(&mut self.has_forgotten)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::exe_name::Whose::{Container, Host};

    /// The names by which a file is known that was run by these paths.
    fn check(run: &[(Whose, &str)], expect: &[&str]) {
        let mut programs = Programs::default();
        let key = FileKey { dev: 1, ino: 1, generation: 0 };
        for (whose, path) in run {
            programs.runs(key, path.as_bytes().to_vec(), *whose);
        }
        let expect: Vec<&[u8]> = expect.iter().map(|path| path.as_bytes()).collect();
        assert_eq!(programs.paths(key), expect, "{run:?}");
    }

    #[test]
    fn where_the_host_has_a_name_no_other_counts() {
        check(&[(Host, "/opt/engine"), (Container, "/tmp/mine")], &["/opt/engine"]);
        check(&[(Container, "/tmp/mine"), (Host, "/opt/engine")], &["/opt/engine"]);
        check(&[(Host, "/opt/engine"), (Host, "/opt/linked")], &["/opt/engine", "/opt/linked"]);
        check(&[(Container, "/usr/bin/python3"), (Container, "/b")], &["/usr/bin/python3", "/b"]);
        check(&[(Container, "/a"), (Container, "/a")], &["/a"]);
    }

    #[test]
    fn a_program_has_a_bounded_number_of_names() {
        let paths: Vec<String> = (0..MAX_PATHS + 3).map(|number| format!("/{number}")).collect();
        let run: Vec<(Whose, &str)> = paths.iter().map(|path| (Host, path.as_str())).collect();
        check(&run, &run[..MAX_PATHS].iter().map(|(_, path)| *path).collect::<Vec<_>>());
    }

    #[test]
    fn of_too_many_those_leave_of_which_no_rule_speaks_and_which_ran_longest_ago() {
        let mut programs = Programs::default();
        let key = |ino: usize| FileKey { dev: 1, ino: ino as u64, generation: 0 };
        for ino in 0..MAX_PROGRAMS {
            programs.runs(key(ino), b"/a".to_vec(), Host);
        }
        // The second has been run again.
        programs.runs(key(1), b"/a".to_vec(), Host);
        assert!(!programs.is_full(key(5)) && programs.is_full(key(MAX_PROGRAMS)));
        let gone = programs.make_room(|one| one == key(0));
        assert_eq!(gone, (2..2 + LEAVE).map(key).collect::<Vec<_>>());
        assert!(programs.take_forgotten() && !programs.take_forgotten());
        assert!(!programs.is_full(key(MAX_PROGRAMS)));
    }
}
