//! What the ways have in common: mappings, descriptors that change hands, calls that no library makes.
#![expect(unsafe_code, reason = "system calls that no safe library has")]

use std::{
    ffi::CString,
    fs::{self, File, OpenOptions},
    io::{self, IoSlice, IoSliceMut, Read as _},
    os::{
        fd::{AsFd as _, AsRawFd as _, FromRawFd as _, OwnedFd, RawFd},
        unix::{
            ffi::OsStrExt as _,
            fs::{FileExt as _, MetadataExt as _, OpenOptionsExt as _},
            net::UnixStream,
        },
    },
    path::Path,
    process::{Child, Command, Stdio},
};

use rustix::{
    mount::{MountPropagationFlags, mount_change},
    net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags},
};

use super::FILE_BYTES;

/// Success as a count, failure as the error of the call that was made last.
pub fn positive(result: isize) -> io::Result<usize> {
    usize::try_from(result).map_err(|_| io::Error::last_os_error())
}

/// A mount namespace of our own, from which nothing leaks.
pub fn private_mounts() -> io::Result<()> {
    // SAFETY: this process has one thread.
    if unsafe { libc::unshare(libc::CLONE_NEWNS) } != 0 {
        return Err(io::Error::last_os_error());
    }
    let flags = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    mount_change("/", flags).map_err(io::Error::from)
}

/// A descriptor that names the file and cannot read it (`O_PATH`).
pub fn named_by_path_only(file: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).custom_flags(libc::O_PATH).open(file)
}

pub fn read_whole(file: &File) -> io::Result<()> {
    let mut buffer = vec![0; 64 * 1024];
    let mut file = file;
    while file.read(&mut buffer)? > 0 {}
    Ok(())
}

/// Standard input as a file.
pub fn standard_input() -> io::Result<File> {
    Ok(File::from(io::stdin().as_fd().try_clone_to_owned()?))
}

/// Five calls, each for a fifth of the file.
pub fn every_read(file: &File) -> io::Result<()> {
    let fifth = FILE_BYTES / 5;
    let mut buffer = vec![0; FILE_BYTES - 4 * fifth];
    let fd = file.as_raw_fd();
    let vector = |buffer: &mut Vec<u8>| libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: fifth };
    let at = |number: usize| i64::try_from(number * fifth).unwrap_or(0);
    let mut file = file;
    file.read_exact(&mut buffer[..fifth])?;
    let got = file.read_vectored(&mut [IoSliceMut::new(&mut buffer[..fifth])])?;
    file.read_exact_at(&mut buffer[..fifth], at(2).cast_unsigned())?;
    let one = vector(&mut buffer);
    // SAFETY: the vectors point into the buffer, which outlives the calls.
    let got = got + positive(unsafe { libc::preadv(fd, &raw const one, 1, at(3)) })?;
    let last = libc::iovec { iov_base: one.iov_base, iov_len: FILE_BYTES - 4 * fifth };
    // SAFETY: as above.
    let got = got + positive(unsafe { libc::preadv2(fd, &raw const last, 1, at(4), 0) })?;
    if got == FILE_BYTES - 2 * fifth { Ok(()) } else { Err(io::Error::other("a short read")) }
}

/// `open_by_handle_at(2)` of the file's handle.
pub fn by_handle(file: &Path) -> io::Result<()> {
    #[repr(C)]
    struct Handle {
        head: [u32; 2],
        bytes: [u8; 128],
    }
    let name = CString::new(file.as_os_str().as_bytes())?;
    let directory = File::open(file.parent().unwrap_or(file))?;
    let mut handle = Handle { head: [128, 0], bytes: [0; 128] };
    let mut mount_id = 0i32;
    // SAFETY: the handle says how much room it has, the name ends with a NUL, and both outlive the calls.
    let opened = unsafe {
        let at = libc::AT_FDCWD;
        let named =
            libc::syscall(libc::SYS_name_to_handle_at, at, name.as_ptr(), &raw mut handle, &raw mut mount_id, 0);
        if named != 0 {
            return Err(io::Error::last_os_error());
        }
        libc::syscall(libc::SYS_open_by_handle_at, directory.as_raw_fd(), &raw mut handle, libc::O_RDONLY)
    };
    descriptor(opened).map(drop)
}

pub fn descriptor(opened: libc::c_long) -> io::Result<OwnedFd> {
    match RawFd::try_from(opened) {
        // SAFETY: the kernel has just made it for us.
        Ok(fd) if fd >= 0 => Ok(unsafe { OwnedFd::from_raw_fd(fd) }),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Another process opens the file and sends the descriptor; this one has never opened it.
pub fn received(file: &Path) -> io::Result<File> {
    pass("send", &file.display().to_string()).map(File::from)
}

/// What a process that does this act sends us.
pub fn pass(act: &str, argument: &str) -> io::Result<OwnedFd> {
    let (ours, theirs) = UnixStream::pair()?;
    let mut sender = this(act)?.arg(argument).stdin(OwnedFd::from(theirs)).spawn()?;
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut byte = [0];
    rustix::net::recvmsg(&ours, &mut [IoSliceMut::new(&mut byte)], &mut control, RecvFlags::empty())?;
    let sent = control.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut files) => files.next(),
        _ => None,
    });
    sender.wait()?;
    sent.ok_or_else(|| io::Error::other("no descriptor came"))
}

/// The other side of [`pass`]; it waits until the other process is done with it.
pub fn send(open: &impl std::os::fd::AsFd) -> io::Result<()> {
    let socket = io::stdin().as_fd().try_clone_to_owned()?;
    let descriptors = [std::os::fd::AsFd::as_fd(open)];
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    control.push(SendAncillaryMessage::ScmRights(&descriptors));
    rustix::net::sendmsg(&socket, &[IoSlice::new(b"x")], &mut control, SendFlags::empty())?;
    Ok(())
}

fn this(act: &str) -> io::Result<Command> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["act", act]);
    Ok(command)
}

/// A process that has read the file and keeps it open as its standard input; ended when dropped.
pub struct Holder(Child);

impl Holder {
    pub fn of(file: &Path) -> io::Result<Self> {
        let mut child = this("hold")?.arg(file).stdin(File::open(file)?).stdout(Stdio::piped()).spawn()?;
        // It says when it has read.
        let mut byte = [0];
        child.stdout.take().map_or(Ok(()), |mut out| out.read_exact(&mut byte))?;
        Ok(Self(child))
    }

    pub fn pid(&self) -> i32 {
        i32::try_from(self.0.id()).unwrap_or(0)
    }

    /// `pidfd_getfd(2)` of its standard input.
    pub fn take_input(&self) -> io::Result<OwnedFd> {
        // SAFETY: plain integers.
        let pidfd = descriptor(unsafe { libc::syscall(libc::SYS_pidfd_open, self.pid(), 0) })?;
        // SAFETY: plain integers.
        descriptor(unsafe { libc::syscall(libc::SYS_pidfd_getfd, pidfd.as_raw_fd(), 0, 0) })
    }
}

/// Reads a byte of the process's stack by `process_vm_readv(2)`.
pub fn read_memory(pid: i32) -> io::Result<()> {
    let maps = fs::read_to_string(format!("/proc/{pid}/maps"))?;
    let line = maps.lines().find(|line| line.ends_with("[stack]"));
    let start = line.and_then(|line| usize::from_str_radix(line.split('-').next()?, 16).ok());
    let start = start.ok_or_else(|| io::Error::other("no stack in /proc/PID/maps"))?;
    let mut byte = 0u8;
    let local = libc::iovec { iov_base: (&raw mut byte).cast(), iov_len: 1 };
    let remote = libc::iovec { iov_base: std::ptr::with_exposed_provenance_mut(start), iov_len: 1 };
    // SAFETY: one byte of ours is written.
    positive(unsafe { libc::process_vm_readv(pid, &raw const local, 1, &raw const remote, 1, 0) }).map(drop)
}

impl Drop for Holder {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What [`Holder`] starts.
pub fn hold() -> io::Result<()> {
    read_whole(&standard_input()?)?;
    println!("x");
    loop {
        std::thread::park();
    }
}

/// Both files are opened and the bytes copied from one to the other by one call.
pub fn copy(file: &Path, outside: &Path, by: impl Fn(RawFd, RawFd) -> isize) -> io::Result<()> {
    let (from, to) = (File::open(file)?, File::create(outside.join("copy"))?);
    let mut copied = 0;
    while copied < FILE_BYTES {
        match positive(by(from.as_raw_fd(), to.as_raw_fd()))? {
            0 => return Err(io::Error::other("a short copy")),
            bytes => copied += bytes,
        }
    }
    Ok(())
}

/// The file into a pipe, piece by piece.
pub fn splice(file: &Path) -> io::Result<()> {
    const PIECE: usize = 32 * 1024;
    let from = File::open(file)?;
    let (mut reader, writer) = io::pipe()?;
    let mut drained = vec![0; PIECE];
    let mut copied = 0;
    while copied < FILE_BYTES {
        // SAFETY: the descriptors are open, and no offset is given.
        let moved = unsafe {
            libc::splice(from.as_raw_fd(), std::ptr::null_mut(), writer.as_raw_fd(), std::ptr::null_mut(), PIECE, 0)
        };
        let moved = positive(moved)?;
        reader.read_exact(&mut drained[..moved])?;
        copied += moved;
    }
    Ok(())
}

/// Maps the whole file and does something with it.
pub fn map(file: &File, protection: i32, flags: i32, then: impl Fn(*const u8)) -> io::Result<()> {
    // SAFETY: a new mapping, which nobody else knows, unmapped at the end.
    unsafe {
        let start = libc::mmap(std::ptr::null_mut(), FILE_BYTES, protection, flags, file.as_raw_fd(), 0);
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        then(start.cast());
        libc::munmap(start, FILE_BYTES);
    }
    Ok(())
}

/// A byte of each page.
pub fn touch(start: *const u8) {
    for page in (0..FILE_BYTES).step_by(4096) {
        // SAFETY: within the mapping.
        let _ = unsafe { start.add(page).read_volatile() };
    }
}

/// Memory below 4 GiB, page-aligned: what 32-bit calls can point to, and `O_DIRECT` can fill.
pub struct Low {
    pub start: *mut libc::c_void,
}

impl Low {
    pub fn new(bytes: usize) -> io::Result<Self> {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_32BIT;
        // SAFETY: a new mapping, kept to the end of this short-lived process.
        let start = unsafe { libc::mmap(std::ptr::null_mut(), bytes, 3, flags, -1, 0) };
        if start == libc::MAP_FAILED { Err(io::Error::last_os_error()) } else { Ok(Self { start }) }
    }

    pub fn path(path: &Path) -> io::Result<Self> {
        let bytes = path.as_os_str().as_bytes();
        let low = Self::new(bytes.len() + 1)?;
        // SAFETY: the mapping is that long, and zeros follow.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), low.start.cast(), bytes.len()) };
        Ok(low)
    }

    pub fn address(&self) -> u32 {
        u32::try_from(self.start.addr()).unwrap_or(0)
    }
}

/// A call of the 32-bit table, which 64-bit programs can make as well: `int 0x80`.
#[cfg(target_arch = "x86_64")]
pub fn call_32(number: u32, one: u32, two: u32, three: u32) -> io::Result<usize> {
    let result: i32;
    // SAFETY: `rbx`, which the compiler keeps for itself, is put back; the kernel may change r8 to r11.
    unsafe {
        std::arch::asm!(
            "push rbx",
            "mov ebx, {one:e}",
            "int 0x80",
            "pop rbx",
            one = in(reg) one,
            inlateout("eax") number => result,
            in("ecx") two,
            in("edx") three,
            out("r8") _, out("r9") _, out("r10") _, out("r11") _,
        );
    }
    usize::try_from(result).map_err(|_| io::Error::from_raw_os_error(-result))
}

/// The whole file by one request of Linux AIO (io_submit(2)), whose structures no library has.
pub fn aio(file: &File) -> io::Result<()> {
    let low = Low::new(FILE_BYTES)?;
    // `struct iocb` of include/uapi/linux/aio_abi.h: data, key and flags, opcode IOCB_CMD_PREAD (0) with priority and
    // descriptor, buffer, length, offset, and three more words.
    let mut request = [0u64; 8];
    request[2] = u64::from(file.as_raw_fd().cast_unsigned()) << 32;
    request[3] = low.start.addr() as u64;
    request[4] = FILE_BYTES as u64;
    let mut context = 0usize;
    let mut requests = [request.as_mut_ptr()];
    let mut event = [0u64; 4];
    // SAFETY: everything that is pointed to outlives the calls.
    unsafe {
        if libc::syscall(libc::SYS_io_setup, 1, &raw mut context) != 0 {
            return Err(io::Error::last_os_error());
        }
        if libc::syscall(libc::SYS_io_submit, context, 1, requests.as_mut_ptr()) != 1 {
            return Err(io::Error::last_os_error());
        }
        let none = std::ptr::null_mut::<libc::timespec>();
        if libc::syscall(libc::SYS_io_getevents, context, 1, 1, event.as_mut_ptr(), none) != 1 {
            return Err(io::Error::last_os_error());
        }
        libc::syscall(libc::SYS_io_destroy, context);
    }
    if event[2] == FILE_BYTES as u64 { Ok(()) } else { Err(io::Error::other("a short read")) }
}

/// One request to the ring, and its result.
pub fn submit(ring: &mut io_uring::IoUring, entry: &io_uring::squeue::Entry) -> io::Result<i32> {
    // SAFETY: what the entry points to lives in the caller until the completion below.
    unsafe { ring.submission().push(entry).map_err(io::Error::other)? };
    ring.submit_and_wait(1)?;
    let completion = ring.completion().next().ok_or_else(|| io::Error::other("no completion"))?;
    let result = completion.result();
    if result < 0 { Err(io::Error::from_raw_os_error(-result)) } else { Ok(result) }
}

/// From now on this process, which must have one thread, is in a network namespace of its own with loopback up.
pub fn own_network() -> io::Result<()> {
    // SAFETY: this process has one thread.
    if unsafe { libc::unshare(libc::CLONE_NEWNET) } != 0 {
        return Err(io::Error::last_os_error());
    }
    loopback_up()
}

/// `SIOCSIFFLAGS` with `IFF_UP` on `lo` (netdevice(7)).
pub fn loopback_up() -> io::Result<()> {
    let socket = std::net::UdpSocket::bind("0.0.0.0:0")?;
    // SAFETY: zeros are a valid `ifreq`.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(b"lo") {
        *to = from.cast_signed();
    }
    request.ifr_ifru.ifru_flags = i16::try_from(libc::IFF_UP | libc::IFF_RUNNING).unwrap_or(1);
    // SAFETY: the descriptor is open and the request is a valid `ifreq` for the whole call.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &raw const request) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Opens the block device of the file system that the file lies on.
pub fn block_device(file: &Path) -> io::Result<()> {
    let dev = fs::metadata(file)?.dev();
    let (major, minor) = (rustix::fs::major(dev), rustix::fs::minor(dev));
    if major == 0 {
        return Err(io::Error::new(io::ErrorKind::Unsupported, "the files lie on no block device"));
    }
    let name = fs::read_link(format!("/sys/dev/block/{major}:{minor}"))?;
    let name = name.file_name().ok_or_else(|| io::Error::other("a device without a name"))?;
    File::open(Path::new("/dev").join(name)).map(drop).map_err(|error| match error.kind() {
        // A container's device rules.
        io::ErrorKind::PermissionDenied => io::ErrorKind::Unsupported.into(),
        _ => error,
    })
}
