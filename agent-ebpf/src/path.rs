//! Spelling a path from dentries and mounts.
//!
//! One walk serves every rung, so that a path means the same on all of them: from the file up to the root of the
//! mount namespace, across mounts, not stopped by a chroot. Components are written last first, each with its NUL;
//! the agent turns them round. (`bpf_d_path` is allowed in few hooks only, and spells relative to the task's root.)
#![expect(unsafe_code, reason = "kernel edge: writes names into a map value")]

use core::ffi::c_void;

use aya_ebpf::helpers::generated::bpf_probe_read_kernel_str;
use plumbline_ebpf::record::{PATH_MAX_BYTES, PATH_MAX_STEPS, PATH_TRUNCATED};

use crate::kernel::{off, read};

/// `NAME_MAX` and a NUL.
const NAME_BYTES: usize = 256;

/// Room for a path; larger than a path, so that a masked offset plus one name always fits.
pub type Area = [u8; 2 * PATH_MAX_BYTES];

/// A spelled path: bytes used in the area, and whether the front is missing.
pub struct Spelled {
    pub bytes: u32,
    pub state: u32,
}

/// Writes the components of `(mnt, dentry)` into `area`. `mnt` is a `struct vfsmount *`.
#[inline(always)]
pub fn spell(area: *mut Area, mnt: u64, dentry: u64) -> Spelled {
    let mut used: usize = 0;
    let mut dentry = dentry;
    let mut vfsmount = mnt;
    let mut root: u64 = read(vfsmount, off!(vfsmount_root));
    // A file in no directory has a name alone: a memfd.
    if read::<u64>(dentry, off!(dentry_parent)) == dentry && dentry != root {
        return name_alone(area, dentry);
    }
    let mut state = PATH_TRUNCATED;
    for _ in 0..PATH_MAX_STEPS {
        let parent: u64 = read(dentry, off!(dentry_parent));
        if dentry == root || dentry == parent {
            let mount = vfsmount.wrapping_sub(u64::from(off!(mount_vfsmount)));
            let parent_mount: u64 = read(mount, off!(mount_parent));
            if parent_mount == mount || parent_mount == 0 || dentry != root {
                state = 0;
                break;
            }
            dentry = read(mount, off!(mount_mountpoint));
            vfsmount = parent_mount.wrapping_add(u64::from(off!(mount_vfsmount)));
            root = read(vfsmount, off!(vfsmount_root));
            continue;
        }
        if used > PATH_MAX_BYTES - NAME_BYTES {
            break;
        }
        let name: u64 = read(dentry, off!(dentry_name));
        let at = used & (PATH_MAX_BYTES - 1);
        // SAFETY: `at` is below PATH_MAX_BYTES and the area has as much again behind it.
        let copied = unsafe {
            bpf_probe_read_kernel_str(
                area.cast::<u8>().add(at).cast::<c_void>(),
                NAME_BYTES as u32,
                name as *const c_void,
            )
        };
        if copied <= 0 {
            break;
        }
        used = at + (copied as usize & (2 * NAME_BYTES - 1));
        dentry = parent;
    }
    Spelled { bytes: used as u32, state }
}

/// The number of the mount namespace that a `struct vfsmount *` is in, up to whose root its paths are spelled; 0 for none.
#[inline(always)]
pub fn mnt_ns(mnt: u64) -> u32 {
    let mount = mnt.wrapping_sub(u64::from(off!(mount_vfsmount)));
    read(read(mount, off!(mount_mnt_ns)), off!(mnt_ns_inum))
}

#[inline(always)]
fn name_alone(area: *mut Area, dentry: u64) -> Spelled {
    let name: u64 = read(dentry, off!(dentry_name));
    // SAFETY: the area is longer than a name.
    let copied = unsafe { bpf_probe_read_kernel_str(area.cast::<c_void>(), NAME_BYTES as u32, name as *const c_void) };
    let bytes = if copied > 0 { copied as u32 & (2 * NAME_BYTES as u32 - 1) } else { 0 };
    Spelled { bytes, state: 0 }
}
