//! Where functions lie in a shared library.

use std::{collections::HashMap, fs::File, io, os::unix::fs::FileExt as _, path::Path};

use object::{Object as _, ObjectSegment as _, ObjectSymbol as _, ReadCache};

use super::trap::{PROLOGUE_BYTES, Prologue};

/// Where a probe of a function goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// Into the file, which is how the kernel names it.
    pub offset: u64,
    pub prologue: Prologue,
}

/// Why the functions of a file are not known.
#[derive(Debug, thiserror::Error)]
pub enum SymbolsError {
    #[error("cannot open it")]
    Open(#[source] io::Error),
    #[error("it is no ELF file that can be read")]
    Elf(#[source] object::Error),
}

/// The exported functions that `wanted` wants, by name.
///
/// A symbol's value is an address; the loadable segment that it lies in says where in the file that is (elf(5)). Only what is asked of
/// the file is read: a driver has 100 MB.
pub fn places(path: &Path, wanted: impl Fn(&str) -> bool) -> Result<HashMap<String, Place>, SymbolsError> {
    let file = File::open(path).map_err(SymbolsError::Open)?;
    let cache = ReadCache::new(&file);
    let elf = object::File::parse(&cache).map_err(SymbolsError::Elf)?;
    let segments: Vec<(u64, u64, u64)> = elf
        .segments()
        .map(|segment| {
            let (offset, bytes) = segment.file_range();
            (segment.address(), offset, bytes)
        })
        .collect();
    let offset = |address: u64| {
        let place = segments.iter().find(|(start, _, bytes)| address.checked_sub(*start).is_some_and(|at| at < *bytes));
        place.and_then(|(start, offset, _)| offset.checked_add(address - start))
    };
    let symbols = elf.dynamic_symbols().filter(object::ObjectSymbol::is_definition);
    Ok(symbols
        .filter_map(|symbol| {
            let name = symbol.name().ok().filter(|name| wanted(name))?;
            Some((name.to_owned(), place(&file, offset(symbol.address())?)?))
        })
        .collect())
}

fn place(file: &File, function: u64) -> Option<Place> {
    // Behind what the file's last function has there may be nothing more.
    let mut code = [0; PROLOGUE_BYTES];
    let bytes = file.read_at(&mut code, function).ok()?;
    let (prologue, further) = Prologue::of(code);
    (bytes > 0).then_some(Place { offset: function + further, prologue })
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    #[test]
    fn a_function_lies_where_its_code_is_in_the_file() {
        // The C library of this very process: what it has in memory at a function is what its file has at the offset.
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        let line =
            maps.lines().find(|line| line.contains("r-xp") && line.contains("/libc.so.6")).expect("libc is mapped");
        let fields: Vec<&str> = line.split_whitespace().collect();
        let found = places(Path::new(fields[5]), |name| name == "getpid").unwrap();
        let start = u64::from_str_radix(fields[0].split('-').next().unwrap(), 16).unwrap();
        let text_offset = u64::from_str_radix(fields[2], 16).unwrap();
        let address = libc::getpid as *const () as u64;
        // What probes go behind, where it is cheaper there.
        let further = found["getpid"].offset - (address - start + text_offset);
        assert!(further == 0 || further == 4, "{further}");
    }

    #[test]
    fn what_is_no_library_is_an_error() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        assert!(places(file.path(), |_| true).is_err());
        file.write_all(b"\x7fELF\x02\x01\x01 and nothing of what follows").unwrap();
        assert!(matches!(places(file.path(), |_| true), Err(SymbolsError::Elf(_))));
        assert!(matches!(places(Path::new("/nonexistent"), |_| true), Err(SymbolsError::Open(_))));
    }
}
