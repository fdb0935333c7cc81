//! Where functions lie in a shared library, or in an executable that contains one.

use std::{collections::HashMap, fs::File, io, os::unix::fs::FileExt as _, path::Path};

use object::{
    Endianness, ReadCache,
    elf::{FileHeader64, PF_X, PN_XNUM, PT_LOAD, SHN_UNDEF, SHT_DYNSYM, SHT_SYMTAB, STT_FUNC, STT_GNU_IFUNC, Sym64},
    read::elf::{FileHeader as _, ProgramHeader as _, SectionHeader as _, Sym as _},
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

/// Bytes of a table of symbols, or of their names: those of the largest libraries of PyTorch are half of it. What says that it is larger is
/// not read.
const MOST_BYTES: u64 = 128 << 20;

/// Bytes of a name that somebody may want.
const MOST_NAME: usize = 64;

/// Functions of one file that are wanted: there are a few hundred names.
const MOST_TRIES: usize = 4096;

/// Why the functions of a file are not known.
#[derive(Debug, thiserror::Error)]
pub enum SymbolsError {
    #[error("cannot open it")]
    Open(#[source] io::Error),
    #[error("it is no ELF file that can be read")]
    Elf(#[source] object::Error),
    #[error("it has more sections or segments than an ELF file has a plain number for")]
    Numbers,
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
    let elf = FileHeader64::<Endianness>::parse(&cache).map_err(SymbolsError::Elf)?;
    let endian = elf.endian().map_err(SymbolsError::Elf)?;
    // Numbers that do not fit are elsewhere (elf(5), e_shnum), and may be anything.
    if elf.e_shnum(endian) == 0 || elf.e_phnum(endian) == PN_XNUM {
        return Err(SymbolsError::Numbers);
    }
    let segments: Vec<(u64, u64, u64)> = elf
        .program_headers(endian, &cache)
        .map_err(SymbolsError::Elf)?
        .iter()
        .filter(|segment| segment.p_type(endian) == PT_LOAD && segment.p_flags(endian) & PF_X != 0)
        .map(|segment| (segment.p_vaddr(endian), segment.p_offset(endian), segment.p_filesz(endian)))
        .collect();
    let offset = |address: u64| {
        let place = segments.iter().find(|(start, _, bytes)| address.checked_sub(*start).is_some_and(|at| at < *bytes));
        place.and_then(|(start, offset, _)| offset.checked_add(address - start))
    };
    let sections = elf.sections(endian, &cache).map_err(SymbolsError::Elf)?;
    let wanted_tables: &[u32] = if symbols == Symbols::All { &[SHT_DYNSYM, SHT_SYMTAB] } else { &[SHT_DYNSYM] };
    let (mut found, mut tries) = (HashMap::new(), 0);
    for table in sections.iter().filter(|section| wanted_tables.contains(&section.sh_type(endian))).take(2) {
        let names =
            sections.section(object::SectionIndex(table.sh_link(endian) as usize)).map_err(SymbolsError::Elf)?;
        if table.sh_size(endian).max(names.sh_size(endian)) > MOST_BYTES {
            continue;
        }
        let symbols: &[Sym64<Endianness>] = table.data_as_array(endian, &cache).map_err(SymbolsError::Elf)?;
        let names = names.data(endian, &cache).map_err(SymbolsError::Elf)?;
        let is_function = |symbol: &&Sym64<Endianness>| {
            symbol.st_shndx(endian) != SHN_UNDEF && [STT_FUNC, STT_GNU_IFUNC].contains(&symbol.st_type())
        };
        for symbol in symbols.iter().filter(is_function) {
            if let Some(name) = name_at(names, symbol.st_name(endian)).filter(|name| wanted(name))
                && !found.contains_key(name)
                && tries < MOST_TRIES
            {
                tries += 1;
                if let Some(place) = offset(symbol.st_value(endian)).and_then(|offset| place(&file, offset)) {
                    found.insert(name.to_owned(), place);
                }
            }
        }
    }
    Ok(found)
}

/// `None` also for what is longer than anybody wants.
fn name_at(names: &[u8], at: u32) -> Option<&str> {
    let name = names.get(usize::try_from(at).ok()?..)?;
    let end = name.iter().take(MOST_NAME).position(|&byte| byte == 0)?;
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

    /// This executable, with another number of sections and another size of its first table of symbols' names.
    #[test]
    fn numbers_that_do_not_fit_are_not_believed() {
        let whole = std::fs::read("/proc/self/exe").unwrap();
        let with = |at: usize, bytes: &[u8]| {
            let mut file = tempfile::NamedTempFile::new().unwrap();
            let mut patched = whole.clone();
            patched[at..at + bytes.len()].copy_from_slice(bytes);
            file.write_all(&patched).unwrap();
            places(file.path(), Symbols::All, |name| name == "main")
        };
        // e_shnum and e_phnum of Elf64_Ehdr.
        assert!(matches!(with(60, &[0, 0]), Err(SymbolsError::Numbers)));
        assert!(matches!(with(56, &[0xff, 0xff]), Err(SymbolsError::Numbers)));
        let u64_at = |at: usize| u64::from_le_bytes(whole[at..at + 8].try_into().unwrap());
        let sections = usize::try_from(u64_at(40)).unwrap();
        let is_table = |section: &usize| whole[section + 4..section + 8] == SHT_SYMTAB.to_le_bytes();
        let table = (0..).map(|number| sections + 64 * number).find(is_table).unwrap();
        // sh_size of Elf64_Shdr: more than is read.
        assert!(with(table + 32, &u64::MAX.to_le_bytes()).unwrap().is_empty());
        // sh_link: names that are nowhere.
        assert!(with(table + 40, &u32::MAX.to_le_bytes()).is_err());
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
