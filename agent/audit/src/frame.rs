//! Frames: the unit of a segment file, and the only place that knows their bytes.
//!
//! Layout (`docs/audit-format.md`): `len u32 LE | crc u32 LE | flags u32 LE | payload`, with CRC-32C over len, flags
//! and payload. The CRC finds accidents and tells where; it proves nothing against intent, that is what hashes and
//! signatures are for. What a payload means is not known here.

use std::io::{self, Read, Seek, SeekFrom};
use std::ops::Range;

/// Bytes before the payload.
pub const PREFIX_BYTES: usize = 12;
/// No payload is longer: the entry limit of C2SP tlog-tiles, so that every record can be exported.
pub const MAX_PAYLOAD_BYTES: usize = 65_535;

/// What a frame carries: the low byte of `flags`; its other bits are reserved and zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The segment header: the first frame of a segment and no other.
    Header = 1,
    /// One record.
    Record = 2,
    /// A signed checkpoint over all records before it.
    Checkpoint = 3,
    /// A checkpoint written when the log was closed in order.
    ClosingCheckpoint = 4,
    /// Leaf hashes of records whose bytes were pruned.
    Pruned = 5,
}

impl Kind {
    fn from_flags(flags: u32) -> Option<Self> {
        [Kind::Header, Kind::Record, Kind::Checkpoint, Kind::ClosingCheckpoint, Kind::Pruned]
            .into_iter()
            .find(|kind| *kind as u32 == flags)
    }
}

/// One frame as read; the payload is borrowed from the reader.
#[derive(Debug)]
pub struct Frame<'a> {
    pub offset: u64,
    pub kind: Kind,
    pub payload: &'a [u8],
}

#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// What is left could be the beginning of a frame whose writing was cut short.
    #[error("expected a whole frame, found {bytes} bytes of an unfinished one")]
    Torn { bytes: u64 },
    #[error("expected a frame length of 1 to {MAX_PAYLOAD_BYTES}, found {found}")]
    Length { found: u32 },
    #[error("expected a frame kind of 1 to 5 in the flags, found {found:#x}")]
    Flags { found: u32 },
    /// `last`: nothing follows this frame.
    #[error("expected the bytes of this frame to have CRC {stored:08x}, found {computed:08x}")]
    Crc { stored: u32, computed: u32, last: bool },
    #[error("cannot read the segment")]
    Io(#[source] io::Error),
}

/// Appends the bytes of one frame to `out`; the payload must fit [`MAX_PAYLOAD_BYTES`].
pub fn encode(kind: Kind, payload: &[u8], out: &mut Vec<u8>) {
    let written: Result<_, std::convert::Infallible> = encode_with(kind, out, |out| {
        out.extend_from_slice(payload);
        Ok(())
    });
    let Ok(_) = written;
}

/// Appends one frame whose payload is what `write` appends; where in `out` that payload stands. On an error `out` is as
/// it was.
pub fn encode_with<E>(
    kind: Kind,
    out: &mut Vec<u8>,
    write: impl FnOnce(&mut Vec<u8>) -> Result<(), E>,
) -> Result<Range<usize>, E> {
    let start = out.len();
    out.extend_from_slice(&[0; PREFIX_BYTES]);
    if let Err(error) = write(out) {
        out.truncate(start);
        return Err(error);
    }
    let payload = start + PREFIX_BYTES..out.len();
    debug_assert!((1..=MAX_PAYLOAD_BYTES).contains(&payload.len()), "the payload fits a frame");
    let len = u32::try_from(payload.len()).expect("a payload fits MAX_PAYLOAD_BYTES").to_le_bytes();
    let flags = (kind as u32).to_le_bytes();
    let crc = crc(len, flags, &out[payload.clone()]).to_le_bytes();
    for (at, word) in [len, crc, flags].into_iter().enumerate() {
        out[start + 4 * at..start + 4 * (at + 1)].copy_from_slice(&word);
    }
    Ok(payload)
}

fn crc(len: [u8; 4], flags: [u8; 4], payload: &[u8]) -> u32 {
    let crc = crc32c::crc32c_append(crc32c::crc32c(&len), &flags);
    crc32c::crc32c_append(crc, payload)
}

/// How much is read at once: at least one of the longest frames, and no more than stays in a processor's cache.
const BUFFER_BYTES: usize = 128 << 10;

/// Reads frame after frame, up to a length fixed beforehand, so that a file can be read while it grows.
#[derive(Debug)]
pub struct Frames<R> {
    reader: R,
    /// Where the next frame begins in the file.
    offset: u64,
    end: u64,
    /// What was read and not yet given out stands at `start..filled`, and `start` is at `offset` in the file.
    buffer: Vec<u8>,
    start: usize,
    filled: usize,
}

impl<R: Read + Seek> Frames<R> {
    /// Frames from `offset` on, where `reader` stands now, to `end`.
    pub fn new(reader: R, offset: u64, end: u64) -> Self {
        Frames { reader, offset, end, buffer: Vec::new(), start: 0, filled: 0 }
    }

    /// Where the next frame begins: after an error, where the bad one begins.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// Where reading ends: the length of the file when it was last looked at.
    pub fn end(&self) -> u64 {
        self.end
    }

    /// Reads on to a new end of the file, after [`FrameError::Torn`] or the end.
    pub fn extend(&mut self, end: u64) -> io::Result<()> {
        self.end = end;
        (self.start, self.filled) = (0, 0);
        self.reader.seek(SeekFrom::Start(self.offset)).map(drop)
    }

    /// Goes on at the same place of another file that holds the same bytes.
    pub fn go_on_in(&mut self, reader: R, end: u64) -> io::Result<()> {
        self.reader = reader;
        self.extend(end)
    }

    /// The next frame, or `None` exactly at the end.
    pub fn next_frame(&mut self) -> Result<Option<Frame<'_>>, FrameError> {
        let rest = self.end.saturating_sub(self.offset);
        if rest == 0 {
            return Ok(None);
        }
        let torn = FrameError::Torn { bytes: rest };
        if rest < PREFIX_BYTES as u64 || !self.fill(PREFIX_BYTES)? {
            return Err(torn);
        }
        let prefix = &self.buffer[self.start..self.start + PREFIX_BYTES];
        let word = |at: usize| [prefix[at], prefix[at + 1], prefix[at + 2], prefix[at + 3]];
        let (len, stored, flags) = (word(0), u32::from_le_bytes(word(4)), word(8));
        let len_bytes = u32::from_le_bytes(len);
        if prefix == [0; PREFIX_BYTES] && self.rest_is_zero()? {
            return Err(torn);
        }
        if len_bytes == 0 || len_bytes as usize > MAX_PAYLOAD_BYTES {
            return Err(FrameError::Length { found: len_bytes });
        }
        let found = u32::from_le_bytes(flags);
        let kind = Kind::from_flags(found).ok_or(FrameError::Flags { found })?;
        let frame_bytes = PREFIX_BYTES + len_bytes as usize;
        if frame_bytes as u64 > rest || !self.fill(frame_bytes)? {
            return Err(torn);
        }
        let (from, to) = (self.start + PREFIX_BYTES, self.start + frame_bytes);
        let computed = crc(len, flags, &self.buffer[from..to]);
        if computed != stored {
            return Err(FrameError::Crc { stored, computed, last: frame_bytes as u64 == rest });
        }
        let offset = self.offset;
        self.start = to;
        self.offset += frame_bytes as u64;
        Ok(Some(Frame { offset, kind, payload: &self.buffer[from..to] }))
    }

    /// Makes `wanted` bytes stand at `start`, or says `false` when the file turned out shorter than its announced length.
    fn fill(&mut self, wanted: usize) -> Result<bool, FrameError> {
        if self.filled - self.start >= wanted {
            return Ok(true);
        }
        self.buffer.resize(BUFFER_BYTES, 0);
        self.buffer.copy_within(self.start..self.filled, 0);
        (self.start, self.filled) = (0, self.filled - self.start);
        let unread = self.end - self.offset - self.filled as u64;
        let most = BUFFER_BYTES.min(self.filled + usize::try_from(unread).unwrap_or(usize::MAX - self.filled));
        while self.filled < wanted {
            match self.reader.read(&mut self.buffer[self.filled..most]) {
                Ok(0) => return Ok(false),
                Ok(count) => self.filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(FrameError::Io(error)),
            }
        }
        Ok(true)
    }

    /// A file whose length reached the disk before its data ends in zeros: the other shape of a torn frame.
    fn rest_is_zero(&mut self) -> Result<bool, FrameError> {
        if self.buffer[self.start..self.filled].iter().any(|byte| *byte != 0) {
            return Ok(false);
        }
        let unread = self.end - self.offset - (self.filled - self.start) as u64;
        let mut rest = self.reader.by_ref().take(unread);
        let mut buffer = [0; 4096];
        let zero = loop {
            let count = rest.read(&mut buffer).map_err(FrameError::Io)?;
            if count == 0 || buffer[..count].iter().any(|byte| *byte != 0) {
                break count == 0;
            }
        };
        // The buffer and the reader no longer stand together.
        self.extend(self.end).map_err(FrameError::Io)?;
        Ok(zero)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::{Expect, expect};
    use proptest::prelude::*;
    use std::io::Cursor;

    fn two_frames() -> Vec<u8> {
        let mut bytes = Vec::new();
        encode(Kind::Record, b"one", &mut bytes);
        encode(Kind::Checkpoint, b"three", &mut bytes);
        bytes
    }

    fn read(bytes: &[u8]) -> String {
        let mut frames = Frames::new(Cursor::new(bytes), 0, bytes.len() as u64);
        let mut seen = String::new();
        loop {
            match frames.next_frame() {
                Ok(Some(frame)) => {
                    seen += &format!("{} {:?} {}\n", frame.offset, frame.kind, frame.payload.escape_ascii());
                }
                Ok(None) => return seen + "end\n",
                Err(error) => return seen + &format!("{} {error}\n", frames.offset()),
            }
        }
    }

    #[track_caller]
    #[expect(clippy::needless_pass_by_value, reason = "an expectation is written in place")]
    fn check(bytes: &[u8], expect: Expect) {
        expect.assert_eq(&read(bytes));
    }

    #[test]
    fn frames_read_back_in_order() {
        check(
            &two_frames(),
            expect![[r#"
            0 Record one
            15 Checkpoint three
            end
        "#]],
        );
    }

    #[test]
    fn a_changed_byte_anywhere_is_found_in_its_frame() {
        let good = two_frames();
        for at in 0..good.len() {
            for bit in 0..8 {
                let mut bytes = good.clone();
                bytes[at] ^= 1 << bit;
                let seen = read(&bytes);
                let (place, whole) = if at < 15 { ("0 expected", 0) } else { ("15 expected", 1) };
                let lines: Vec<_> = seen.lines().collect();
                assert!(lines.len() == whole + 1 && lines[whole].starts_with(place), "byte {at} bit {bit}: {seen}");
            }
        }
    }

    #[test]
    fn every_cut_inside_the_last_frame_is_torn() {
        let good = two_frames();
        for len in 16..good.len() {
            assert!(read(&good[..len]).contains("15 expected a whole frame"), "cut to {len}");
        }
    }

    #[test]
    fn a_tail_of_zeros_is_torn_but_zeros_before_data_are_damage() {
        let torn = [two_frames(), vec![0; 5000]].concat();
        assert!(read(&torn).ends_with("32 expected a whole frame, found 5000 bytes of an unfinished one\n"));
        check(
            &[vec![0; 5000], two_frames()].concat(),
            expect![[r#"
            0 expected a frame length of 1 to 65535, found 0
        "#]],
        );
    }

    #[test]
    fn a_length_that_no_writer_writes_is_damage_and_not_a_torn_frame() {
        let mut bytes = two_frames();
        bytes[2] = 1;
        check(
            &bytes,
            expect![[r#"
            0 expected a frame length of 1 to 65535, found 65539
        "#]],
        );
    }

    #[test]
    fn reading_goes_on_where_it_was_torn_once_the_rest_is_there() {
        let good = two_frames();
        let mut frames = Frames::new(Cursor::new(&good), 0, 20);
        assert_eq!(frames.next_frame().unwrap().unwrap().payload, b"one");
        assert!(matches!(frames.next_frame(), Err(FrameError::Torn { bytes: 5 })));
        frames.extend(good.len() as u64).unwrap();
        assert_eq!(frames.next_frame().unwrap().unwrap().payload, b"three");
        assert!(frames.next_frame().unwrap().is_none());
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_reader_panic(bytes in prop::collection::vec(prop_oneof![Just(0), 0u8..6, any::<u8>()], 0..300)) {
            read(&bytes);
        }
    }
}
