//! The few requests to io_uring that the ways need, one at a time.

use std::{ffi::CString, io, os::fd::RawFd, path::Path};

use io_uring::{IoUring, opcode, types};

use super::tools::submit;

/// Opens by the ring and gives the descriptor.
pub fn open(ring: &mut IoUring, path: &Path) -> io::Result<RawFd> {
    let name = CString::new(path.as_os_str().as_encoded_bytes())?;
    submit(ring, &opcode::OpenAt::new(types::Fd(libc::AT_FDCWD), name.as_ptr()).flags(libc::O_RDONLY).build())
}

/// Reads the whole file in pieces.
pub fn read(ring: &mut IoUring, file: RawFd, bytes: usize) -> io::Result<()> {
    pieces(bytes, |buffer, offset, length| {
        submit(ring, &opcode::Read::new(types::Fd(file), buffer, length).offset(offset).build())
    })
}

/// The same from a file that is registered with the ring.
pub fn read_fixed(ring: &mut IoUring, file: RawFd, bytes: usize) -> io::Result<()> {
    ring.submitter().register_files(&[file])?;
    pieces(bytes, |buffer, offset, length| {
        submit(ring, &opcode::Read::new(types::Fixed(0), buffer, length).offset(offset).build())
    })
}

fn pieces(bytes: usize, mut read: impl FnMut(*mut u8, u64, u32) -> io::Result<i32>) -> io::Result<()> {
    let mut buffer = vec![0u8; 64 * 1024];
    let length = u32::try_from(buffer.len()).unwrap_or(0);
    let mut offset = 0;
    while offset < bytes {
        let got = read(buffer.as_mut_ptr(), offset as u64, length)?;
        if got == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        offset += usize::try_from(got).unwrap_or(0);
    }
    Ok(())
}
