//! What the kernel charges for our maps.

use std::{collections::BTreeMap, fs};

/// Memory of every map that this process holds open, from `memlock` of `/proc/self/fdinfo` (kernel/bpf/syscall.c,
/// `bpf_map_show_fdinfo`), each map once.
pub fn map_bytes() -> u64 {
    let infos = fs::read_dir("/proc/self/fdinfo").into_iter().flatten().flatten();
    let maps = infos.filter_map(|info| map(&fs::read_to_string(info.path()).ok()?));
    maps.collect::<BTreeMap<u64, u64>>().values().sum()
}

/// Id and bytes of a map; `None` for other descriptors.
fn map(info: &str) -> Option<(u64, u64)> {
    let number = |name: &str| info.lines().find_map(|line| line.strip_prefix(name))?.trim().parse().ok();
    Some((number("map_id:")?, number("memlock:")?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_map_is_known_by_its_id_and_a_program_is_none() {
        assert_eq!(map("pos:\t0\nmap_type:\t2\nmemlock:\t8192\nmap_id:\t7\nfrozen:\t0\n"), Some((7, 8192)));
        assert_eq!(map("pos:\t0\nprog_type:\t17\nmemlock:\t4096\nprog_id:\t9\n"), None);
    }
}
