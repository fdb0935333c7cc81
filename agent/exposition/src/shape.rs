//! What two pages of one program have in common: everything but the values.

use std::hash::{BuildHasher, Hasher as _};

use crate::lines::MAX_LINE_BYTES;

/// A number that is equal for two pages that differ in the values of their samples and in nothing else; the values, in the order of
/// the page, are put into `values`.
///
/// It looks for the last blank of a line and not at what is before it, which is much quicker than [`Lines`](crate::Lines). So it proves
/// nothing about a page alone, but this about two: where the first had no wrong line, no timestamp and no exemplar, `Lines` yields
/// for the second what it yielded for the first, with the second's values. (What is before the value is the same to the byte, and where a
/// value ends in itself, as one does that stands last on its line, nothing after it can change what was read before.)
///
/// `None`: a line that is no comment does not end in a blank and a number, or is too long. Different pages have one number by chance as often as
/// `hasher`'s hashes are equal by chance: it has to be seeded.
pub fn shape(page: &[u8], hasher: &impl BuildHasher, values: &mut Vec<f64>) -> Option<u64> {
    let mut hash = hasher.build_hasher();
    let mut rest = page;
    while !rest.is_empty() {
        let end = memchr::memchr(b'\n', rest).map_or(rest.len(), |end| end + 1);
        let (line, after) = rest.split_at(end);
        rest = after;
        let first = line.iter().find(|byte| !matches!(byte, b' ' | b'\t' | b'\r' | b'\n'));
        if first.is_none_or(|&first| first == b'#') {
            hash.write(line);
            continue;
        }
        let text = line.strip_suffix(b"\n").unwrap_or(line);
        if text.len() > MAX_LINE_BYTES {
            return None;
        }
        let (before, value) = text.split_at(memchr::memrchr(b' ', text)? + 1);
        values.push(std::str::from_utf8(value).ok()?.parse().ok()?);
        hash.write(before);
        // No line has one within, so no two of them make a third.
        hash.write_u8(b'\n');
    }
    Some(hash.finish())
}
