//! The daemon's own maps, programs and links, as the kernel numbers them: whoever else reaches for them is told.

use std::{collections::BTreeSet, fs};

use aya::maps::{HashMap as KernelMap, MapData};
use plumbline_ebpf::bpf::{OBJECT_LINK, OBJECT_MAP, OBJECT_PROGRAM, OBJECTS, Object};

use super::{Probes, ProbesError};

impl Probes {
    /// Tells the programs which objects are this process's.
    pub(super) fn know_own_objects(&mut self) -> Result<(), ProbesError> {
        let mut own: KernelMap<&mut MapData, [u32; 2], u32> = self.map_of("OWN_OBJECTS")?;
        for object in objects().into_iter().take(OBJECTS as usize) {
            let object: [u32; 2] = object.into();
            own.insert(object, 1, 0).map_err(|error| ProbesError::Map("OWN_OBJECTS", Box::new(error)))?;
        }
        Ok(())
    }
}

/// Every map, program and link that this process holds open, from `/proc/self/fdinfo` (kernel/bpf/syscall.c, `bpf_map_show_fdinfo`,
/// `bpf_prog_show_fdinfo`, `bpf_link_show_fdinfo`): kind and number.
fn objects() -> BTreeSet<(u32, u32)> {
    let infos = fs::read_dir("/proc/self/fdinfo").into_iter().flatten().flatten();
    infos.filter_map(|info| fs::read_to_string(info.path()).ok()).flat_map(|info| named(&info)).collect()
}

/// A link's says its program as well.
fn named(info: &str) -> Vec<(u32, u32)> {
    let number = |name: &str| info.lines().find_map(|line| line.strip_prefix(name))?.trim().parse().ok();
    let of_kind = |(kind, name)| Some((kind, number(name)?));
    [(OBJECT_MAP, "map_id:"), (OBJECT_PROGRAM, "prog_id:"), (OBJECT_LINK, "link_id:")]
        .into_iter()
        .filter_map(of_kind)
        .collect()
}

const _: () = assert!(size_of::<Object>() == size_of::<[u32; 2]>());

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_is_known_by_what_its_descriptor_says() {
        assert_eq!(named("pos:\t0\nmap_type:\t2\nmemlock:\t8192\nmap_id:\t7\nfrozen:\t0\n"), [(OBJECT_MAP, 7)]);
        assert_eq!(named("pos:\t0\nprog_type:\t17\nmemlock:\t4096\nprog_id:\t9\n"), [(OBJECT_PROGRAM, 9)]);
        assert_eq!(
            named("link_type:\traw_tracepoint\nlink_id:\t3\nprog_tag:\tab\nprog_id:\t9\n"),
            [(OBJECT_PROGRAM, 9), (OBJECT_LINK, 3)]
        );
        assert_eq!(named("pos:\t0\nflags:\t02\n"), []);
    }
}
