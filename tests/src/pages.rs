//! The oracle of what a process can see of a file: its own page tables (Documentation/admin-guide/mm/pagemap.rst).

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io,
    os::unix::fs::FileExt as _,
    path::Path,
};

const PAGE: u64 = 4096;
const SLICES: u64 = 512;

/// How many of the file's 512 slices have a page in the process's tables.
pub fn present_slices(pid: u32, file: &Path) -> io::Result<u64> {
    let size = fs::metadata(file)?.len();
    let name = file.display().to_string();
    let maps = fs::read_to_string(format!("/proc/{pid}/maps"))?;
    let pagemap = File::open(format!("/proc/{pid}/pagemap"))?;
    let mut slices = BTreeSet::new();
    for line in maps.lines().filter(|line| line.ends_with(&name)) {
        let mut fields = line.split_whitespace();
        let hex = |text: &str| u64::from_str_radix(text, 16).map_err(io::Error::other);
        let (start, end) = fields.next().and_then(|range| range.split_once('-')).ok_or(io::ErrorKind::InvalidData)?;
        let (start, end) = (hex(start)?, hex(end)?);
        let offset = hex(fields.nth(1).ok_or(io::ErrorKind::InvalidData)?)?;
        let mut entries = vec![0; usize::try_from((end - start) / PAGE * 8).map_err(io::Error::other)?];
        pagemap.read_exact_at(&mut entries, start / PAGE * 8)?;
        for (page, entry) in (0..).zip(entries.chunks_exact(8)) {
            // Bit 63: the page is in memory and mapped.
            let byte = offset + page * PAGE;
            if entry[7] & 0x80 != 0 && byte < size {
                slices.insert(byte * SLICES / size);
            }
        }
    }
    Ok(slices.len() as u64)
}
