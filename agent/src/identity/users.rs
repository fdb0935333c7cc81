//! User ids → names, as the host's `/etc/passwd` has them (passwd(5)). Ids of directories elsewhere (LDAP, SSSD) have no
//! name here, which satisfies no policy.

use std::{collections::HashMap, sync::Arc};

use super::procfs::Processes;

/// How long the file is believed.
const KEEP_NS: u64 = 60_000_000_000;

/// More lines than this are left out.
const MAX_USERS: usize = 65_536;

/// The users of the host.
#[derive(Debug, Default)]
pub struct Users {
    names: HashMap<u32, Arc<str>>,
    read_boot_ns: Option<u64>,
}

impl Users {
    pub fn name(&mut self, uid: u32, now_boot_ns: u64, proc: &dyn Processes) -> Option<Arc<str>> {
        if self.read_boot_ns.is_none_or(|read| now_boot_ns.saturating_sub(read) > KEEP_NS) {
            self.names = parse(&proc.passwd().unwrap_or_default());
            self.read_boot_ns = Some(now_boot_ns);
        }
        self.names.get(&uid).cloned()
    }
}

/// Of several names of one id the first holds, as for getpwuid(3). Lines that are not as they should be are passed over.
pub fn parse(file: &[u8]) -> HashMap<u32, Arc<str>> {
    let mut names = HashMap::new();
    for line in file.split(|byte| *byte == b'\n').take(MAX_USERS) {
        let mut fields = line.split(|byte| *byte == b':');
        let (name, uid) = (fields.next(), fields.nth(1));
        let name = name.and_then(|name| std::str::from_utf8(name).ok()).filter(|name| !name.is_empty());
        let uid = uid.and_then(|uid| std::str::from_utf8(uid).ok()).and_then(|uid| uid.parse().ok());
        if let (Some(name), Some(uid)) = (name, uid) {
            names.entry(uid).or_insert_with(|| name.into());
        }
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_name_of_an_id_holds_and_bad_lines_are_passed_over() {
        let names = parse(
            b"root:x:0:0::/root:/bin/sh\ntoor:x:0:0::/:\nbad\n:x:7:\n\xff:x:8:\nada:x:1000:1000:,,,:/home/ada:/bin/sh",
        );
        assert_eq!(names, HashMap::from([(0, "root".into()), (1000, "ada".into())]));
    }
}
