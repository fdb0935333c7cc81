//! At which addresses the kernel maps the pages that it knows by their `struct page`: two variables of the kernel, by the
//! names that `/proc/kallsyms` has where all symbols are built in (`CONFIG_KALLSYMS_ALL`) and shown (`kernel.kptr_restrict`,
//! CAP_SYSLOG).

use std::{
    fs::File,
    io::{BufRead as _, BufReader},
    sync::OnceLock,
};

use super::btf::Btf;

/// What turns a `struct page *` into an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pages {
    /// Size of a `struct page`.
    pub page_bytes: u32,
    pub vmemmap_base_at: u64,
    pub page_offset_base_at: u64,
}

/// Of x86-64 (arch/x86/mm/kaslr.c).
const NAMES: [&str; 2] = ["vmemmap_base", "page_offset_base"];

pub fn find(btf: &Btf) -> Result<Pages, String> {
    // The kernel has them at one place as long as it runs.
    static FOUND: OnceLock<Result<[u64; 2], String>> = OnceLock::new();
    let page_bytes = btf.size("page").ok_or("this kernel's BTF lacks page")?;
    let [vmemmap_base_at, page_offset_base_at] = FOUND.get_or_init(read).clone()?;
    Ok(Pages { page_bytes, vmemmap_base_at, page_offset_base_at })
}

fn read() -> Result<[u64; 2], String> {
    const PATH: &str = "/proc/kallsyms";
    let file = File::open(PATH).map_err(|error| format!("{PATH}: {error}"))?;
    addresses(BufReader::new(file).lines().map_while(Result::ok)).map_err(|why| format!("{PATH} {why}"))
}

/// Lines of address, kind and name (proc(5)).
fn addresses(lines: impl Iterator<Item = String>) -> Result<[u64; 2], String> {
    let mut found = [None; 2];
    for line in lines {
        let mut words = line.split_whitespace();
        let (Some(address), Some(_kind), Some(name)) = (words.next(), words.next(), words.next()) else { continue };
        let Some(position) = NAMES.iter().position(|wanted| *wanted == name) else { continue };
        found[position] = u64::from_str_radix(address, 16).ok();
        if let [Some(one), Some(other)] = found {
            let is_shown = one != 0 && other != 0;
            return is_shown.then_some([one, other]).ok_or_else(|| "hides addresses".to_owned());
        }
    }
    Err(format!("has not both of {}", NAMES.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(lines: &str, expect: Result<[u64; 2], &str>) {
        assert_eq!(addresses(lines.lines().map(str::to_owned)), expect.map_err(str::to_owned));
    }

    #[test]
    fn both_variables_are_found_wherever_they_stand() {
        check(
            "ffffffff81000000 T _text\nffffffff82a1b2c8 D page_offset_base\nffffffff82a1b2d0 D vmemmap_base\nffffffffc0000000 t x\t[y]\n",
            Ok([0xffff_ffff_82a1_b2d0, 0xffff_ffff_82a1_b2c8]),
        );
    }

    #[test]
    fn what_is_hidden_or_not_there_is_said() {
        check("0000000000000000 D vmemmap_base\n0000000000000000 D page_offset_base\n", Err("hides addresses"));
        check("ffffffff82a1b2d0 D vmemmap_base\n\ngarbage\n", Err("has not both of vmemmap_base, page_offset_base"));
    }
}
