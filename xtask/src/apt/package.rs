//! What `apt` prints: control stanzas (Debian Policy, chapter 5) and lines of `--print-uris`.

use std::collections::BTreeMap;
use std::fmt;

use crate::error::{Error, Result};

/// One exact package to fetch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Package {
    pub(crate) name: String,
    pub(crate) version: String,
    pub(crate) size_bytes: u64,
}

impl fmt::Display for Package {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} ({})", self.name, self.version, megabytes(self.size_bytes))
    }
}

/// One paragraph of `Field: value` lines; field names are kept in lower case, as they are compared so.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Stanza(BTreeMap<String, String>);

impl Stanza {
    pub(crate) fn get(&self, field: &str) -> Option<&str> {
        self.0.get(&field.to_ascii_lowercase()).map(String::as_str)
    }

    /// The names this package depends on, the first of each alternative, without versions and architectures.
    pub(crate) fn depends(&self) -> impl Iterator<Item = &str> {
        self.get("Depends").unwrap_or_default().split(',').filter_map(|choice| {
            let first = choice.split('|').next()?.trim();
            first.split([' ', '(', ':']).next().filter(|name| !name.is_empty())
        })
    }

    /// The version without Debian's epoch, repacking and revision marks: `1.95.0+dfsg1-2~bpo13+1` is `1.95.0`.
    pub(crate) fn upstream_version(&self) -> &str {
        let version = self.get("Version").unwrap_or_default();
        let version = version.split_once(':').map_or(version, |(_epoch, rest)| rest);
        version.split(['+', '-', '~']).next().unwrap_or_default()
    }

    pub(crate) fn package(&self) -> Result<Package> {
        let field = |name| self.get(name).ok_or_else(|| Error::said(format!("a package stanza without `{name}`")));
        let size = field("Size")?;
        Ok(Package {
            name: field("Package")?.to_owned(),
            version: field("Version")?.to_owned(),
            size_bytes: size.parse().map_err(|_| Error::said(format!("a package stanza with Size `{size}`")))?,
        })
    }
}

/// Paragraphs are separated by empty lines; a line that starts with a blank continues the field above it.
pub(crate) fn stanzas(text: &str) -> Vec<Stanza> {
    let mut all = Vec::new();
    let mut current = Stanza::default();
    let mut last_field = String::new();
    for line in text.lines().chain([""]) {
        if line.trim().is_empty() {
            if !current.0.is_empty() {
                all.push(std::mem::take(&mut current));
            }
        } else if line.starts_with([' ', '\t']) {
            if let Some(value) = current.0.get_mut(&last_field) {
                value.push('\n');
                value.push_str(line.trim());
            }
        } else if let Some((field, value)) = line.split_once(':') {
            last_field = field.to_ascii_lowercase();
            current.0.insert(last_field.clone(), value.trim().to_owned());
        }
    }
    all
}

/// Lines of `apt-get --print-uris`: `'URI' name_version_arch.deb SIZE HASH`, the epoch's colon written as `%3a`.
pub(crate) fn from_print_uris(text: &str) -> Result<Vec<Package>> {
    text.lines().filter(|line| line.starts_with('\'')).map(from_print_uri).collect()
}

fn from_print_uri(line: &str) -> Result<Package> {
    let parse = || {
        let mut words = line.split_whitespace().skip(1);
        let (file, size) = (words.next()?, words.next()?);
        let mut parts = file.strip_suffix(".deb")?.split('_');
        let (name, version) = (parts.next()?, parts.next()?);
        Some(Package { name: name.to_owned(), version: version.replace("%3a", ":"), size_bytes: size.parse().ok()? })
    };
    parse().ok_or_else(|| Error::said(format!("apt named a package in a way not understood: {line}")))
}

pub(crate) fn megabytes(bytes: u64) -> String {
    let tenths = bytes.div_ceil(100_000);
    format!("{}.{} MB", tenths / 10, tenths % 10)
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::*;

    const TWO: &str = "\
Package: linux-image-cloud-amd64
Version: 7.3.4-1~bpo13+1
Depends: linux-base:any (= 7.3.4-1~bpo13+1), dracut | initramfs-tools (>= 0.120), linux-image-7.3.4+deb13-cloud-amd64 (= 1)
Size: 1524

Package: rust-src
Version: 1:1.95.0+dfsg1-2~bpo13+1
Description: sources
 of the standard library
Size: 45097356
";

    fn check_depends(stanza: &Stanza, expected: &[&str]) {
        assert_eq!(stanza.depends().collect::<Vec<_>>(), expected);
    }

    fn check_uri(line: &str, expected: &Expect) {
        let text = match from_print_uris(line) {
            Ok(packages) => packages.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"),
            Err(error) => format!("error: {error}"),
        };
        expected.assert_eq(&text);
    }

    #[test]
    fn stanzas_end_at_empty_lines_and_fields_go_on_over_indented_ones() {
        let all = stanzas(TWO);
        assert_eq!(all.len(), 2);
        assert_eq!(all[1].get("description"), Some("sources\nof the standard library"));
        assert_eq!(all[1].package().unwrap().size_bytes, 45_097_356);
    }

    #[test]
    fn a_dependency_is_its_first_alternative_without_version_and_architecture() {
        let all = stanzas(TWO);
        check_depends(&all[0], &["linux-base", "dracut", "linux-image-7.3.4+deb13-cloud-amd64"]);
        check_depends(&all[1], &[]);
    }

    #[test]
    fn the_upstream_version_has_neither_epoch_nor_debian_marks() {
        let all = stanzas(TWO);
        assert_eq!([all[0].upstream_version(), all[1].upstream_version()], ["7.3.4", "1.95.0"]);
    }

    #[test]
    fn a_stanza_without_size_is_refused() {
        let error = stanzas("Package: a\nVersion: 1\n")[0].package().expect_err("there is no size");
        expect!["a package stanza without `Size`"].assert_eq(&error.to_string());
    }

    #[test]
    fn a_printed_uri_gives_name_version_with_epoch_and_size() {
        check_uri(
            "Reading...\n'http://m/pool/q_7.2.deb' qemu-system-x86_1%3a7.2+dfsg-7_amd64.deb 9281168 SHA256:ab",
            &expect!["qemu-system-x86 1:7.2+dfsg-7 (9.3 MB)"],
        );
    }

    #[test]
    fn a_printed_uri_of_another_shape_is_an_error_that_shows_it() {
        check_uri(
            "'http://m/x' x.tar 12 SHA256:ab",
            &expect!["error: apt named a package in a way not understood: 'http://m/x' x.tar 12 SHA256:ab"],
        );
    }
}
