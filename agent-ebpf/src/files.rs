//! Which files are watched: a file by its own inode, wherever it is opened; an unknown one by the directories above it.
//!
//! A file that lies below a watched directory is watched from then on under every name it has: hard links, bind mounts,
//! descriptors that were passed. What lies elsewhere costs one look at a cache of directories; no path is spelled.
#![expect(unsafe_code, reason = "kernel edge: map values are raw pointers")]

use core::ptr::read_volatile;

use aya_ebpf::{
    macros::map,
    maps::{Array, HashMap, LruHashMap},
};
use plumbline_ebpf::{
    program,
    record::{Control, FileId, VIA_BLOCK_DEVICE, VIA_BYPASS_DEVICE, VIA_GPU_DEVICE, VIA_PROC_MEM, WatchedFile},
};

use crate::{
    emit,
    kernel::{off, read},
};

/// Watched directories, enrolled by the agent with the keys that the file-open program read.
#[map]
static WATCHED: HashMap<FileId, u32> = HashMap::with_max_entries(2048, 0);

/// Watched files: those that the agent found below the directories, and those that were opened there since.
#[map]
static FILES: HashMap<FileId, WatchedFile> = HashMap::with_max_entries(16_384, 0);

#[map]
static CONTROL: Array<Control> = Array::with_max_entries(1, 0);

/// Block devices that watched files lie on, by `dev_t`.
#[map]
static DEVICES: HashMap<u32, u32> = HashMap::with_max_entries(256, 0);

/// Directories above whose files nothing is watched, each with the epoch in which that was found.
#[map]
static ELSEWHERE: LruHashMap<DirectoryId, u32> = LruHashMap::with_max_entries(16_384, 0);

/// Raised when a directory is renamed and, on the rungs that see system calls, when something is mounted; the agent raises
/// it every second besides, which bounds how long a directory that moved otherwise stays hidden.
#[map]
static EPOCH: Array<u32> = Array::with_max_entries(1, 0);

/// A directory as it is reached: by which inode and by which mount.
#[repr(C)]
struct DirectoryId {
    ino: u64,
    vfsmount: u64,
    dev: u32,
    generation: u32,
}

/// Directories and mounts that the walk up follows.
const MAX_STEPS: usize = 64;

pub const S_IFMT: u16 = 0o170_000;
pub const S_IFREG: u16 = 0o100_000;
pub const S_IFBLK: u16 = 0o060_000;
pub const S_IFCHR: u16 = 0o020_000;

/// `NV_MAJOR_DEVICE_NUMBER` of NVIDIA's open kernel modules (kernel-open/common/inc/nv-chardev-numbers.h).
const NVIDIA_MAJOR: u32 = 195;

/// include/uapi/linux/magic.h
const PROC_SUPER_MAGIC: u64 = 0x9fa0;

/// What the agent wants of the programs; `None` before it has said so.
#[inline(always)]
pub fn control() -> Option<&'static Control> {
    CONTROL.get(0)
}

/// Whether the programs at the return of system calls do the work of `program`.
#[inline(always)]
pub fn at_return(program: u32) -> bool {
    match CONTROL.get(0) {
        Some(control) => control.at_return & (1 << program) != 0,
        None => false,
    }
}

/// Whether anything is watched at all.
#[inline(always)]
pub fn watching() -> bool {
    match CONTROL.get(0) {
        Some(control) => control.watched != 0,
        None => false,
    }
}

/// A directory is renamed, or something was mounted: what is remembered of directories is forgotten.
#[inline(always)]
pub fn forget_directories() {
    if let Some(epoch) = EPOCH.get_ptr_mut(0) {
        // SAFETY: a map value; a lost race still leaves another number than before.
        unsafe { *epoch = (*epoch).wrapping_add(1) };
    }
}

#[inline(always)]
pub fn id(inode: u64) -> FileId {
    let super_block: u64 = read(inode, off!(inode_sb));
    FileId { ino: read(inode, off!(inode_ino)), dev: read(super_block, off!(super_block_dev)), reserved: 0 }
}

/// Whether this is a GPU's device node, or a way around the watched files: `VIA_*` of the record, or 0. `mode` is the inode's.
#[inline(always)]
pub fn special(inode: u64, mode: u16, dentry: u64) -> u32 {
    let name: u64 = read(dentry, off!(dentry_name));
    match mode & S_IFMT {
        S_IFBLK => {
            let device: u32 = read(inode, off!(inode_rdev));
            if DEVICES.get_ptr(&device).is_some() { VIA_BLOCK_DEVICE } else { 0 }
        }
        // Names as their drivers give them: /dev/infiniband/{uverbs0,rdma_cm}, /dev/nvidia-fs0; /dev/nvidia{0,ctl,-uvm},
        // /dev/dri/renderD128, /dev/kfd. Another name of the same device is known by its major number.
        S_IFCHR => {
            let name: u64 = read(name, 0);
            let is = |text: &[u8; 8], bytes: u32| {
                let mask = u64::MAX >> (64 - 8 * bytes);
                u64::from_ne_bytes(*text) & mask == name & mask
            };
            if is(b"uverbs  ", 6) || is(b"rdma_cm ", 7) || is(b"nvidia-f", 8) {
                return VIA_BYPASS_DEVICE;
            }
            let major = read::<u32>(inode, off!(inode_rdev)) >> 20;
            let is_gpu = is(b"nvidia  ", 6) || is(b"renderD ", 7) || is(b"kfd\0    ", 4) || major == NVIDIA_MAJOR;
            if is_gpu { VIA_GPU_DEVICE } else { 0 }
        }
        S_IFREG => {
            let super_block: u64 = read(inode, off!(inode_sb));
            let in_proc = read::<u64>(super_block, off!(super_block_magic)) == PROC_SUPER_MAGIC;
            if in_proc && read::<u32>(name, 0) == u32::from_ne_bytes(*b"mem\0") { VIA_PROC_MEM } else { 0 }
        }
        _ => 0,
    }
}

#[inline(always)]
pub fn is_regular(inode: u64) -> bool {
    read::<u16>(inode, off!(inode_mode)) & S_IFMT == S_IFREG
}

/// Whether this very inode is watched; fills `watch` if so.
#[inline(always)]
pub fn is_watched(inode: u64, id: &FileId, watch: &mut WatchedFile) -> bool {
    let Some(found) = FILES.get_ptr(id) else { return false };
    // SAFETY: a map value of plain integers; one by one, since a copy is a call (see `decide::get`).
    unsafe {
        watch.watched_ino = read_volatile(&raw const (*found).watched_ino);
        watch.watched_dev = read_volatile(&raw const (*found).watched_dev);
        watch.generation = read_volatile(&raw const (*found).generation);
    }
    watch.generation == read::<u32>(inode, off!(inode_generation))
}

/// Whether the file lies below a watched directory; fills `watch` and remembers the file if so, and the directory if
/// not. The walk climbs to the root of each file system on the way, not only of each mount, so that a bind mount of a
/// directory below a watched one does not hide what is in it.
#[inline(always)]
pub fn is_below_watched(mnt: u64, dentry: u64, inode: u64, id: &FileId, watch: &mut WatchedFile) -> bool {
    let parent: u64 = read(dentry, off!(dentry_parent));
    let parent_inode: u64 = read(parent, off!(dentry_inode));
    let directory = DirectoryId {
        ino: read(parent_inode, off!(inode_ino)),
        vfsmount: mnt,
        dev: id.dev,
        generation: read(parent_inode, off!(inode_generation)),
    };
    // Read before the walk: what moves meanwhile makes the answer old.
    let epoch = match EPOCH.get(0) {
        Some(epoch) => *epoch,
        None => 0,
    };
    if let Some(seen) = ELSEWHERE.get_ptr(&directory) {
        // SAFETY: a map value.
        if unsafe { *seen } == epoch {
            return false;
        }
    }
    let mut key = *id;
    let mut dentry = dentry;
    let mut vfsmount = mnt;
    for _ in 0..MAX_STEPS {
        let above: u64 = read(dentry, off!(dentry_inode));
        key.ino = read(above, off!(inode_ino));
        if WATCHED.get_ptr(&key).is_some() {
            watch.watched_ino = key.ino;
            watch.watched_dev = key.dev;
            watch.generation = read(inode, off!(inode_generation));
            // A full table leaves the file to this walk, and its reads uncounted: that is a loss.
            if FILES.insert(id, &*watch, 0).is_err() {
                emit::count_table_full(program::FILE_OPEN);
            }
            return true;
        }
        let mut parent: u64 = read(dentry, off!(dentry_parent));
        if parent == dentry {
            // The root of a file system: what lies above is where it is mounted.
            let mount = vfsmount.wrapping_sub(u64::from(off!(mount_vfsmount)));
            let parent_mount: u64 = read(mount, off!(mount_parent));
            if parent_mount == mount || parent_mount == 0 {
                let _ = ELSEWHERE.insert(&directory, &epoch, 0);
                return false;
            }
            parent = read(mount, off!(mount_mountpoint));
            vfsmount = parent_mount.wrapping_add(u64::from(off!(mount_vfsmount)));
            let inode: u64 = read(parent, off!(dentry_inode));
            let super_block: u64 = read(inode, off!(inode_sb));
            key.dev = read(super_block, off!(super_block_dev));
        }
        dentry = parent;
    }
    false
}
