//! How slots are written. Most numbers of a node do not change from one second to the next, most buckets of a histogram
//! count nothing: what repeats is written once.
//!
//! | first byte | is |
//! |---|---|
//! | `00`–`7f` | the last cell again, `n + 1` times |
//! | `80`–`bf` | nothing, for `n − 7f` slots |
//! | `c0` | a beginning: a counter was read, and there is nothing that it could be compared with |
//! | `c1`, one byte | a whole number up to 255 |
//! | `c2`, four bytes | a number, `f32`, least byte first |
//! | `c3`, length, four bytes, pairs | what a histogram counted: the sum as above; then for each bucket that counted anything, how far it is from the bucket before and how much, all varints (LEB128) |

pub const MOST_REPEATS: u8 = 0x7f;
pub const GAP: u8 = 0x80;
pub const MOST_GAP: u8 = 0xbf;
const BEGIN: u8 = 0xc0;
const SMALL: u8 = 0xc1;
const NUMBER: u8 = 0xc2;
const COUNTS: u8 = 0xc3;

/// What stands in one slot.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Cell<'a> {
    /// The first reading of a counter, also after a gap.
    Begin,
    Number(f32),
    Counts(Counts<'a>),
}

/// What a histogram counted, bucket by bucket and not cumulative.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Counts<'a> {
    pub sum: f32,
    pairs: &'a [u8],
}

impl Counts<'_> {
    /// `(bucket, count)`, ascending.
    pub fn buckets(&self) -> impl Iterator<Item = (usize, u64)> {
        let mut rest = self.pairs;
        let mut next = 0_u64;
        std::iter::from_fn(move || {
            let (step, count) = (varint(&mut rest)?, varint(&mut rest)?);
            let bucket = next + step;
            next = bucket + 1;
            Some((usize::try_from(bucket).ok()?, count))
        })
    }
}

/// Writes a beginning.
pub fn begin(out: &mut Vec<u8>) {
    out.clear();
    out.push(BEGIN);
}

/// Writes a number.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a float of half the length is meant; checked"
)]
pub fn number(value: f64, out: &mut Vec<u8>) {
    out.clear();
    if value.fract() == 0.0 && (0.0..=255.0).contains(&value) {
        out.extend([SMALL, value as u8]);
    } else {
        out.push(NUMBER);
        out.extend(narrow(value).to_le_bytes());
    }
}

/// Half as long; the greatest there is for what is greater still, and never an infinity.
#[expect(clippy::cast_possible_truncation, reason = "a float of half the length is meant")]
fn narrow(value: f64) -> f32 {
    value.clamp(f64::from(f32::MIN), f64::from(f32::MAX)) as f32
}

/// Writes what a histogram counted.
pub fn counts(sum: f64, buckets: &[u64], out: &mut Vec<u8>) {
    out.clear();
    let mut pairs = Vec::new();
    let mut next = 0;
    for (at, &count) in buckets.iter().enumerate().filter(|(_, count)| **count > 0) {
        put_varint((at - next) as u64, &mut pairs);
        put_varint(count, &mut pairs);
        next = at + 1;
    }
    out.push(COUNTS);
    put_varint(pairs.len() as u64, out);
    out.extend(narrow(sum).to_le_bytes());
    out.extend(pairs);
}

fn put_varint(mut value: u64, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.push((value & 0x7f) as u8);
}

fn varint(rest: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (&byte, more) = rest.split_first()?;
        *rest = more;
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(value);
        }
    }
    None
}

/// One cell from its bytes, and the bytes after it.
pub fn read(bytes: &[u8]) -> Option<(Cell<'_>, &[u8])> {
    let (&tag, rest) = bytes.split_first()?;
    match tag {
        BEGIN => Some((Cell::Begin, rest)),
        SMALL => rest.split_first().map(|(&byte, rest)| (Cell::Number(f32::from(byte)), rest)),
        NUMBER => rest.split_first_chunk().map(|(bytes, rest)| (Cell::Number(f32::from_le_bytes(*bytes)), rest)),
        COUNTS => {
            let mut rest = rest;
            let length = usize::try_from(varint(&mut rest)?).ok()?;
            let (sum, rest) = rest.split_first_chunk()?;
            let (pairs, rest) = rest.split_at_checked(length)?;
            Some((Cell::Counts(Counts { sum: f32::from_le_bytes(*sum), pairs }), rest))
        }
        _ => None,
    }
}
