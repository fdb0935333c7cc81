//! Where functions lie in a shared library, or in an executable that contains one.

use std::{collections::HashMap, fs::File, io, os::unix::fs::FileExt as _, path::Path};

use object::{
    Endianness, Object as _, ObjectSegment as _, ReadCache, ReadRef,
    elf::{FileHeader64, SHN_UNDEF, SHT_DYNSYM, SHT_SYMTAB},
    read::elf::{ElfFile64, SectionHeader as _, Sym as _},
};

use super::trap::{PROLOGUE_BYTES, Prologue};

/// Where a probe of a function goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// Into the file, which is how the kernel names it.
    pub offset: u64,
    pub prologue: Prologue,
}

/// Which of a file's symbols.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Symbols {
    /// Those that others may call (`.dynsym`).
    Exported,
    /// Those as well that a linker has left behind (`.symtab`), as long as nobody has stripped the file.
    All,
}

/// Bytes of a table of symbols, or of their names: those of the largest libraries of PyTorch are a tenth of it.
const MOST_BYTES: u64 = 512 << 20;

/// Why the functions of a file are not known.
#[derive(Debug, thiserror::Error)]
pub enum SymbolsError {
    #[error("cannot open it")]
    Open(#[source] io::Error),
    #[error("it is no ELF file that can be read")]
    Elf(#[source] object::Error),
}

/// The functions that `wanted` wants, by name.
///
/// A symbol's value is an address; the loadable segment that it lies in says where in the file that is (elf(5)). Only what is asked of
/// the file is read, a table at a time: a driver has 100 MB.
pub fn places(
    path: &Path,
    symbols: Symbols,
    wanted: impl Fn(&str) -> bool,
) -> Result<HashMap<String, Place>, SymbolsError> {
    let file = File::open(path).map_err(SymbolsError::Open)?;
    let cache = ReadCache::new(&file);
    let elf: ElfFile64<'_, Endianness, _> = ElfFile64::parse(&cache).map_err(SymbolsError::Elf)?;
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
    let tables: &[u32] = if symbols == Symbols::All { &[SHT_DYNSYM, SHT_SYMTAB] } else { &[SHT_DYNSYM] };
    let mut found = HashMap::new();
    for table in tables {
        for (name, address) in table_of(&elf, &cache, *table).map_err(SymbolsError::Elf)? {
            if let Some(name) = name.filter(|name| wanted(name))
                && let Some(place) = offset(address).and_then(|offset| place(&file, offset))
            {
                found.insert(name.to_owned(), place);
            }
        }
    }
    Ok(found)
}

/// Names and addresses of what a table defines; the names are read in one piece, since there may be a million of them.
fn table_of<'data, R: ReadRef<'data>>(
    elf: &ElfFile64<'data, Endianness, R>,
    data: R,
    table: u32,
) -> Result<impl Iterator<Item = (Option<&'data str>, u64)>, object::Error> {
    let endian = elf.endian();
    let sections = elf.elf_section_table();
    let is_small = |section: &<FileHeader64<Endianness> as object::read::elf::FileHeader>::SectionHeader| {
        section.sh_size(endian) <= MOST_BYTES
    };
    // What says that it is larger than a file can be is not read.
    let known = sections.iter().filter(|section| section.sh_type(endian) == table && is_small(section)).count();
    let symbols = if known > 0 { sections.symbols(endian, data, table)? } else { Default::default() };
    let names: &[u8] = match sections.section(symbols.string_section()) {
        Ok(section) if is_small(section) => section.data(endian, data)?,
        _ => &[],
    };
    let is_defined = move |symbol: &&'data object::elf::Sym64<Endianness>| symbol.st_shndx(endian) != SHN_UNDEF;
    let symbols = symbols.symbols().iter().filter(is_defined);
    Ok(symbols.map(move |symbol| (name_at(names, symbol.st_name(endian)), symbol.st_value(endian))))
}

fn name_at(names: &[u8], at: u32) -> Option<&str> {
    let name = names.get(usize::try_from(at).ok()?..)?;
    let end = name.iter().position(|&byte| byte == 0)?;
    std::str::from_utf8(&name[..end]).ok()
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
        let found = places(Path::new(fields[5]), Symbols::Exported, |name| name == "getpid").unwrap();
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
        assert!(places(file.path(), Symbols::All, |_| true).is_err());
        file.write_all(b"\x7fELF\x02\x01\x01 and nothing of what follows").unwrap();
        assert!(matches!(places(file.path(), Symbols::All, |_| true), Err(SymbolsError::Elf(_))));
        let nowhere = Path::new("/nonexistent");
        assert!(matches!(places(nowhere, Symbols::Exported, |_| true), Err(SymbolsError::Open(_))));
    }

    #[test]
    fn a_function_inside_of_an_executable_is_found_among_all_symbols() {
        let found = |symbols| places(Path::new("/proc/self/exe"), symbols, |name| name == "main").unwrap().len();
        assert_eq!((found(Symbols::All), found(Symbols::Exported)), (1, 0));
    }

    #[test]
    fn what_is_cut_off_says_so_and_does_not_end_the_daemon() {
        let whole = std::fs::read("/proc/self/exe").unwrap();
        for bytes in (0..64).chain([1000, whole.len() / 2, whole.len() - 1]) {
            let mut file = tempfile::NamedTempFile::new().unwrap();
            file.write_all(&whole[..bytes]).unwrap();
            assert!(places(file.path(), Symbols::All, |_| true).is_err(), "{bytes}");
        }
    }
}
