//! Fills [`Offsets`] from the kernel's BTF and says which fields are missing, by group.

use plumbline_ebpf::offsets::{FIELDS, Group, Offsets, UNKNOWN};
use zerocopy::FromBytes as _;

use super::{
    btf::Btf,
    pages::{self, Pages},
};

/// What the running kernel gave us.
#[derive(Debug)]
pub struct Resolved {
    pub offsets: Offsets,
    /// Fields that this kernel lacks, with the group that needs them.
    pub missing: Vec<(Group, String)>,
    /// Where pages lie, or why nobody knows.
    pub pages: Result<Pages, String>,
}

impl Resolved {
    /// Why programs that need `groups` cannot run here, or `None`.
    pub fn lacks(&self, groups: &[Group]) -> Option<String> {
        if groups.contains(&Group::Pages)
            && let Err(why) = &self.pages
        {
            return Some(why.clone());
        }
        let names: Vec<&str> =
            self.missing.iter().filter(|(group, _)| groups.contains(group)).map(|(_, name)| name.as_str()).collect();
        (!names.is_empty()).then(|| format!("this kernel's BTF lacks {}", names.join(", ")))
    }
}

/// Looks every field up; the first spelling that the kernel knows wins.
pub fn resolve(btf: &Btf) -> Resolved {
    let mut missing = Vec::new();
    let words: Vec<u32> = FIELDS
        .iter()
        .map(|field| {
            let found = field.spellings.iter().find_map(|(of, path)| btf.member_offset(of, path).ok());
            found.unwrap_or_else(|| {
                let spelled: Vec<String> = field.spellings.iter().map(|(of, path)| format!("{of}.{path}")).collect();
                missing.push((field.group, spelled.join(" or ")));
                UNKNOWN
            })
        })
        .collect();
    let bytes: Vec<u8> = words.into_iter().flat_map(u32::to_ne_bytes).collect();
    let offsets = Offsets::read_from_bytes(&bytes).unwrap_or(Offsets::NONE);
    Resolved { offsets, missing, pages: pages::find(btf) }
}
