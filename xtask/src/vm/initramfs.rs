//! An initial RAM file system in the `newc` cpio format (Linux: `Documentation/driver-api/early-userspace/
//! buffer-format.rst`): thirteen 8-digit hexadecimal fields, the name and the content, each padded to four bytes.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use crate::cmd;
use crate::error::{Error, Result};
use crate::tools::{self, Tools};

const DIRECTORY: u32 = 0o040_755;
const PROGRAM: u32 = 0o100_755;
const CHARACTER_DEVICE: u32 = 0o020_600;
/// Ends the archive.
const TRAILER: &str = "TRAILER!!!";

/// A cpio archive in memory; parents of a file are added by themselves.
#[derive(Debug, Default)]
pub(crate) struct Initramfs {
    bytes: Vec<u8>,
    directories: BTreeSet<String>,
    entries: u32,
}

impl Initramfs {
    pub(crate) fn directory(&mut self, path: &str) {
        self.parents(path);
        if self.directories.insert(path.to_owned()) {
            self.entry(path, DIRECTORY, (0, 0), &[]);
        }
    }

    /// Gives the first process its standard streams.
    pub(crate) fn console(&mut self) {
        self.parents("dev/console");
        self.entry("dev/console", CHARACTER_DEVICE, (5, 1), &[]);
    }

    pub(crate) fn file(&mut self, path: &str, from: &Path) -> Result<()> {
        let content = fs::read(from).map_err(Error::file("read", from))?;
        self.parents(path);
        self.entry(path, PROGRAM, (0, 0), &content);
        Ok(())
    }

    /// A program with the shared libraries it needs, at the places where its loader looks. Its debug information stays
    /// behind, nine tenths of it, which an emulated machine would spend half a minute to unpack.
    pub(crate) fn program(&mut self, path: &str, from: &Path, scratch: &Path) -> Result<()> {
        let stripped = scratch.join(format!("{path}.stripped"));
        cmd::output(Command::new("strip").arg("-o").arg(&stripped).arg(from))?;
        self.file(path, &stripped)?;
        for library in tools::libraries(&cmd::output(Command::new("ldd").arg(from))?) {
            if self.directories.insert(library.to_owned()) {
                self.file(library.trim_start_matches('/'), Path::new(library))?;
            }
        }
        Ok(())
    }

    /// A program of others in `/usr/bin`, with its libraries where they belong.
    pub(crate) fn tool(&mut self, name: &str, from: &Path, tools: &Tools) -> Result<()> {
        self.file(&format!("usr/bin/{name}"), from)?;
        for (path, here) in tools.libraries(from)? {
            let path = path.to_string_lossy();
            if self.directories.insert(format!("/{}", path.trim_start_matches('/'))) {
                self.file(path.trim_start_matches('/'), &here)?;
            }
        }
        Ok(())
    }

    pub(crate) fn finish(mut self) -> Vec<u8> {
        self.entry(TRAILER, 0, (0, 0), &[]);
        self.bytes
    }

    fn parents(&mut self, path: &str) {
        if let Some((parent, _name)) = path.rsplit_once('/') {
            self.directory(parent);
        }
    }

    fn entry(&mut self, name: &str, mode: u32, device: (u32, u32), content: &[u8]) {
        self.entries += 1;
        let length = |bytes: usize| u32::try_from(bytes).expect("a file in a small test image is below 4 GiB");
        let links = 1;
        let fields = [
            self.entries, // inode number
            mode,
            0, // owner
            0, // group
            links,
            0, // modification time
            length(content.len()),
            0, // major and minor number of the device the file lay on
            0,
            device.0,
            device.1,
            length(name.len() + 1), // with the final zero
            0,                      // checksum, unused in this variant
        ];
        self.bytes.extend_from_slice(b"070701");
        for field in fields {
            self.bytes.extend_from_slice(format!("{field:08X}").as_bytes());
        }
        self.bytes.extend_from_slice(name.as_bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend_from_slice(content);
        self.pad();
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;

    #[test]
    fn an_archive_lists_each_parent_once_before_its_files_and_ends_with_the_trailer() {
        let mut image = Initramfs::default();
        image.directory("sys/fs");
        image.directory("sys/fs/bpf");
        image.console();
        let bytes = image.finish();
        let shown: String = bytes.iter().map(|&byte| if byte == 0 { '.' } else { char::from(byte) }).collect();
        assert_eq!(bytes.len() % 4, 0);
        expect![[r"
            ..sys...
            ..sys/fs....
            ..sys/fs/bpf....
            ..dev...
            ..dev/console...
            ..TRAILER!!!....
        "]]
        .assert_eq(&names(&shown));
        assert!(shown.contains("070701000000050000218000000000"), "mode 020600 is hexadecimal 2180: {shown}");
    }

    /// The names with their padding, one a line.
    fn names(shown: &str) -> String {
        shown.split("070701").skip(1).map(|entry| format!("..{}\n", &entry[104..])).collect()
    }
}
