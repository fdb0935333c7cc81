//! Block devices by number, and what lies below them: a partition's disk, the parts of LVM, of device-mapper and of md.
//!
//! `/sys/dev/block/MAJOR:MINOR` leads to the device's directory; a partition's lies in its disk's, and `slaves` lists the
//! devices that a stacked one is made of (Documentation/ABI/stable/sysfs-block of the kernel).

use std::{fs, path::Path};

/// Stacks are a few devices high.
const MAX_HEIGHT: usize = 8;

/// The device and all below it, in the kernel's encoding (`major << 20 | minor`); nothing for a number that is no block
/// device, such as that of tmpfs or btrfs.
pub fn below(device: u32) -> Vec<u32> {
    below_in(Path::new("/sys/dev/block"), device)
}

fn below_in(root: &Path, device: u32) -> Vec<u32> {
    let mut found = Vec::new();
    let mut left = vec![(root.join(format!("{}:{}", device >> 20, device & 0xf_ffff)), 0)];
    while let Some((directory, height)) = left.pop() {
        let Some(number) = number(&directory) else { continue };
        if found.contains(&number) || height > MAX_HEIGHT {
            continue;
        }
        found.push(number);
        if directory.join("partition").exists()
            && let Ok(own) = fs::canonicalize(&directory)
        {
            left.extend(own.parent().map(|disk| (disk.to_owned(), height + 1)));
        }
        let slaves = fs::read_dir(directory.join("slaves")).into_iter().flatten().filter_map(Result::ok);
        left.extend(slaves.map(|entry| (entry.path(), height + 1)));
    }
    found
}

/// The file `dev` holds `major:minor`.
fn number(directory: &Path) -> Option<u32> {
    let text = fs::read_to_string(directory.join("dev")).ok()?;
    let (major, minor) = text.trim().split_once(':')?;
    Some(major.parse::<u32>().ok()? << 20 | minor.parse::<u32>().ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_volume_leads_to_its_partition_and_that_to_its_disk() -> std::io::Result<()> {
        let root = std::env::temp_dir().join(format!("plumbline-sys-{}", std::process::id()));
        let (dm, disk) = (root.join("devices/dm-0"), root.join("devices/sda"));
        let part = disk.join("sda1");
        fs::create_dir_all(dm.join("slaves"))?;
        fs::create_dir_all(&part)?;
        for (directory, number) in [(&dm, "253:0"), (&disk, "8:0"), (&part, "8:1")] {
            fs::write(directory.join("dev"), format!("{number}\n"))?;
        }
        fs::write(part.join("partition"), "1\n")?;
        std::os::unix::fs::symlink(&part, dm.join("slaves/sda1"))?;
        std::os::unix::fs::symlink(&dm, root.join("253:0"))?;
        assert_eq!(below_in(&root, 253 << 20), [253 << 20, 8 << 20 | 1, 8 << 20]);
        assert_eq!(below_in(&root, 39), Vec::<u32>::new());
        fs::remove_dir_all(root)
    }
}
