//! The ways, gone by a child process: `vm-init act WAY FILE OUTSIDE`.
#![expect(unsafe_code, reason = "the ways are system calls that no safe library has")]

use std::{
    ffi::CString,
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    os::{
        fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
        unix::{ffi::OsStrExt as _, fs::OpenOptionsExt as _},
    },
    process::{Command, ExitCode},
};

use io_uring::IoUring;
use rustix::mount::{MountFlags, mount, mount_bind};

use super::{
    FILE_BYTES, Site, io_uring as ring, names, out,
    tools::{
        Holder, Low, aio, block_device, by_handle, call_32, copy, every_read, hold, map, named_by_path_only, positive,
        private_mounts, read_memory, read_whole, received, send, splice, standard_input, touch,
    },
};

/// The exit code that says: this machine lacks what the way needs.
pub const UNABLE: u8 = 77;

/// Goes the way that the arguments name.
pub fn main(arguments: &[String]) -> ExitCode {
    let of = |position: usize| arguments.get(position).map_or("", |word| &**word);
    let (way, site) = (of(0), Site { file: of(1).into(), outside: of(2).into() });
    let went = names::go(way, of(1), of(2)).or_else(|| out::go(way, of(1), of(2)));
    match went.unwrap_or_else(|| go(way, &site)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if is_unable(&error) => {
            eprintln!("this machine: {error}");
            ExitCode::from(UNABLE)
        }
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

/// What file systems and kernels say when they do not have something.
fn is_unable(error: &io::Error) -> bool {
    let lacks = [libc::EOPNOTSUPP, libc::ENOSYS, libc::ENODEV, libc::EXDEV, libc::ENOTTY];
    error.kind() == io::ErrorKind::Unsupported || error.raw_os_error().is_some_and(|code| lacks.contains(&code))
}

fn go(way: &str, site: &Site) -> io::Result<()> {
    let Site { file, outside } = site;
    match way {
        "open by its own name" => File::open(file).map(drop),
        "open through a symbolic link" => {
            std::os::unix::fs::symlink(file, outside.join("link"))?;
            File::open(outside.join("link")).map(drop)
        }
        "open through a hard link in another directory" => {
            fs::hard_link(file, outside.join("hard"))?;
            File::open(outside.join("hard")).map(drop)
        }
        "open through a bind mount of the file" => {
            private_mounts()?;
            let target = outside.join("bound");
            File::create(&target)?;
            mount_bind(file, &target)?;
            File::open(&target).map(drop)
        }
        "open a new file through a bind mount of a directory below the watched one" => {
            private_mounts()?;
            let (below, target) = (site.watched().join("below"), outside.join("bound"));
            fs::create_dir(&below)?;
            fs::create_dir(&target)?;
            mount_bind(&below, &target)?;
            File::create(target.join("new.gguf")).map(drop)
        }
        "open after it was moved to another directory" => {
            fs::rename(file, outside.join("moved"))?;
            File::open(outside.join("moved")).map(drop)
        }
        "open a copy that was put in its place by rename" | "put another file in its place by rename" => {
            fs::write(outside.join("other"), b"other weights")?;
            fs::rename(outside.join("other"), file)?;
            File::open(file).map(drop)
        }
        "open by a file handle" => by_handle(file),
        "open through /proc/PID/fd" => {
            let path = named_by_path_only(file)?;
            File::open(format!("/proc/self/fd/{}", path.as_raw_fd())).map(drop)
        }
        "open in another mount namespace" => {
            private_mounts()?;
            mount("none", outside, "tmpfs", MountFlags::empty(), None)?;
            File::open(file).map(drop)
        }
        "open by io_uring" => {
            let mut io = IoUring::new(8)?;
            let opened = ring::open(&mut io, file)?;
            // SAFETY: the ring has just made it.
            drop(unsafe { OwnedFd::from_raw_fd(opened) });
            Ok(())
        }
        "open by a 32-bit system call" => {
            let low = Low::path(file)?;
            call_32(5, low.address(), 0, 0).map(drop)
        }
        "receive its descriptor over a socket" | "read through a descriptor that was received over a socket" => {
            read_whole(&received(file)?)
        }
        "take its descriptor by pidfd_getfd" => Holder::of(file)?.take_input().map(drop),
        "read through an inherited descriptor after exec" => {
            let inherited = File::open(file)?;
            let mut heir = Command::new(std::env::current_exe()?);
            let status = heir.args(["act", "read standard input"]).stdin(inherited).status()?;
            if status.success() { Ok(()) } else { Err(io::Error::other("the grandchild failed")) }
        }
        "read standard input" => read_whole(&standard_input()?),
        "send" => send(&File::open(file)?),
        "connect and send" => send(&std::net::TcpStream::connect(file.display().to_string())?),
        "hold" => hold(),
        "read after it was removed while open" => {
            let open = File::open(file)?;
            fs::remove_file(file)?;
            read_whole(&open)
        }
        "read by read, pread, readv, preadv and preadv2" => every_read(&File::open(file)?),
        "read by a 32-bit system call" => {
            let open = File::open(file)?;
            let low = Low::new(FILE_BYTES)?;
            let bytes = u32::try_from(FILE_BYTES).unwrap_or(0);
            let got = call_32(3, open.as_raw_fd().cast_unsigned(), low.address(), bytes)?;
            if got == FILE_BYTES { Ok(()) } else { Err(io::Error::other("a short read")) }
        }
        "read past the page cache (O_DIRECT)" => {
            let open = OpenOptions::new().read(true).custom_flags(libc::O_DIRECT).open(file);
            // tmpfs of older kernels says that the flag is invalid.
            let unsupported = |error: io::Error| match error.kind() {
                io::ErrorKind::InvalidInput => io::ErrorKind::Unsupported.into(),
                _ => error,
            };
            let open = open.map_err(unsupported)?;
            let low = Low::new(FILE_BYTES)?;
            // SAFETY: the buffer is that long.
            let got = positive(unsafe { libc::pread(open.as_raw_fd(), low.start, FILE_BYTES, 0) })?;
            if got == FILE_BYTES { Ok(()) } else { Err(io::Error::other("a short read")) }
        }
        "copy by sendfile" => {
            {
                // SAFETY: no offset is given.
                copy(file, outside, |from, to| unsafe { libc::sendfile(to, from, std::ptr::null_mut(), FILE_BYTES) })
            }
        }
        "copy by splice" => splice(file),
        "copy by copy_file_range" => {
            let none = std::ptr::null_mut();
            // SAFETY: no offsets are given.
            copy(file, outside, |from, to| unsafe { libc::copy_file_range(from, none, to, none, FILE_BYTES, 0) })
        }
        "read by io_uring" => {
            let open = File::open(file)?;
            ring::read(&mut IoUring::new(8)?, open.as_raw_fd(), FILE_BYTES)
        }
        "read by io_uring from a fixed file" => {
            let open = File::open(file)?;
            ring::read_fixed(&mut IoUring::new(8)?, open.as_raw_fd(), FILE_BYTES)
        }
        "read by AIO (io_submit)" => aio(&File::open(file)?),
        "map and touch" => map(&File::open(file)?, libc::PROT_READ, libc::MAP_PRIVATE, touch),
        "map and touch what no cache has" => {
            let file = File::open(file)?;
            file.sync_all()?;
            rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed)?;
            map(&file, libc::PROT_READ, libc::MAP_PRIVATE, touch)
        }
        "map populated in advance" => {
            map(&File::open(file)?, libc::PROT_READ, libc::MAP_PRIVATE | libc::MAP_POPULATE, |_| {})
        }
        "read the memory of a process by process_vm_readv" => {
            let holder = Holder::of(file)?;
            read_memory(holder.pid())
        }
        "read the memory of a process through /proc/PID/mem" => {
            let holder = Holder::of(file)?;
            File::open(format!("/proc/{}/mem", holder.pid())).map(drop)
        }
        "attach to a process by ptrace" => {
            let holder = Holder::of(file)?;
            // SAFETY: plain integers.
            let attached = unsafe { libc::ptrace(libc::PTRACE_SEIZE, holder.pid(), 0, 0) };
            if attached == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
        }
        "open the block device below" => block_device(file),
        "copy by reflink (FICLONE)" => {
            let (from, to) = (File::open(file)?, File::create(outside.join("clone"))?);
            rustix::fs::ioctl_ficlone(&to, &from).map_err(io::Error::from)
        }
        "write" => OpenOptions::new().write(true).open(file)?.write_all(b"other"),
        "map shared and writable" => {
            let open = OpenOptions::new().read(true).write(true).open(file)?;
            map(&open, libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED, |_| {})
        }
        "truncate by descriptor" => OpenOptions::new().write(true).open(file)?.set_len(5),
        "truncate by name" => {
            let name = CString::new(file.as_os_str().as_bytes())?;
            // SAFETY: the name ends with a NUL.
            if unsafe { libc::truncate(name.as_ptr(), 5) } == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
        }
        "truncate by opening" => OpenOptions::new().write(true).truncate(true).open(file).map(drop),
        "punch a hole (fallocate)" => {
            let open = OpenOptions::new().write(true).open(file)?;
            let mode = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
            // SAFETY: plain integers.
            if unsafe { libc::fallocate(open.as_raw_fd(), mode, 0, 4096) } == 0 {
                Ok(())
            } else {
                Err(io::Error::last_os_error())
            }
        }
        "rename" => fs::rename(file, site.watched().join("renamed")),
        "remove" => fs::remove_file(file),
        "make a hard link" => fs::hard_link(file, outside.join("hard")),
        "open on an overlay" => File::open(file).map(drop),
        "open in the layer below an overlay" => File::open(outside.join("lower/w.safetensors")).map(drop),
        _ => Err(io::Error::other("nobody knows how to go this way")),
    }
}
