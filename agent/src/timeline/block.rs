//! Sixty slots of one series in a few bytes. Most numbers of a node do not change from one second to the next, most buckets of a histogram
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

/// Slots of one block.
pub const SLOTS: u64 = 60;

const MOST_REPEATS: u8 = 0x7f;
const GAP: u8 = 0x80;
const MOST_GAP: u8 = 0xbf;
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
        out.extend((value as f32).to_le_bytes());
    }
}

/// Writes what a histogram counted.
#[expect(clippy::cast_possible_truncation, reason = "a float of half the length is meant")]
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
    out.extend((sum as f32).to_le_bytes());
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
pub fn cell(bytes: &[u8]) -> Option<(Cell<'_>, &[u8])> {
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

/// The slots from `SLOTS * index` on.
#[derive(Debug)]
pub struct Block {
    pub index: u64,
    /// Of them so many are written.
    slots: u8,
    /// Whether the last byte says how often the last cell is repeated.
    is_repeating: bool,
    /// Where the last cell is that was written out.
    last: (u32, u32),
    bytes: Vec<u8>,
}

impl Block {
    pub fn new(index: u64) -> Self {
        Self { index, slots: 0, is_repeating: false, last: (0, 0), bytes: Vec::new() }
    }

    /// Puts the cell of these bytes into a slot, counted from the first of the block; a slot before the last is too late.
    pub fn push(&mut self, slot: u8, cell: &[u8]) {
        let Some(mut gap) = slot.checked_sub(self.slots) else { return };
        while gap > 0 {
            let run = gap.min(MOST_GAP - GAP + 1);
            self.bytes.push(GAP + run - 1);
            self.is_repeating = false;
            gap -= run;
        }
        self.slots = slot + 1;
        let last = self.last.0 as usize..self.last.1 as usize;
        if last.is_empty() || self.bytes[last] != *cell {
            let start = self.bytes.len();
            self.bytes.extend_from_slice(cell);
            self.last = (short(start), short(self.bytes.len()));
            self.is_repeating = false;
            return;
        }
        match self.bytes.last_mut() {
            Some(run) if self.is_repeating && *run < MOST_REPEATS => *run += 1,
            _ => self.bytes.push(0),
        }
        self.is_repeating = true;
    }

    /// Nothing will be written any more.
    pub fn seal(&mut self) {
        self.bytes.shrink_to_fit();
    }

    /// What it takes of memory, itself included.
    pub fn size_bytes(&self) -> usize {
        size_of::<Self>() + self.bytes.capacity()
    }

    /// `(slot, cell)`, ascending, gaps left out.
    pub fn cells(&self) -> impl Iterator<Item = (u64, Cell<'_>)> {
        let mut rest = &self.bytes[..];
        let mut slot = SLOTS * self.index;
        let mut last = None;
        let mut again = 0_u8;
        std::iter::from_fn(move || {
            loop {
                if again > 0 {
                    again -= 1;
                    slot += 1;
                    return Some((slot - 1, last?));
                }
                match *rest.first()? {
                    run @ ..=MOST_REPEATS => {
                        again = run + 1;
                        rest = &rest[1..];
                    }
                    run @ GAP..=MOST_GAP => {
                        slot += u64::from(run - GAP) + 1;
                        rest = &rest[1..];
                    }
                    _ => {
                        let (cell, after) = cell(rest)?;
                        (last, rest, slot) = (Some(cell), after, slot + 1);
                        return Some((slot - 1, cell));
                    }
                }
            }
        })
    }
}

/// A block has at most sixty cells of some thousand buckets.
fn short(offset: usize) -> u32 {
    u32::try_from(offset).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[derive(Debug, Clone)]
    enum Written {
        Begin,
        Number(f64),
        Counts(f64, Vec<u64>),
    }

    fn bytes(written: &Written) -> Vec<u8> {
        let mut out = vec![9];
        match written {
            Written::Begin => begin(&mut out),
            Written::Number(value) => number(*value, &mut out),
            Written::Counts(sum, buckets) => counts(*sum, buckets, &mut out),
        }
        out
    }

    fn is_read(written: &Written, cell: Cell<'_>) -> bool {
        match (written, cell) {
            (Written::Begin, Cell::Begin) => true,
            #[expect(clippy::cast_possible_truncation, reason = "as it is written")]
            (Written::Number(value), Cell::Number(read)) => {
                read.total_cmp(&(*value as f32 + 0.0)).is_eq() || (*value as f32 - read).abs() == 0.0
            }
            (Written::Counts(_, buckets), Cell::Counts(counts)) => {
                let mut read = vec![0; buckets.len()];
                counts.buckets().for_each(|(bucket, count)| read[bucket] = count);
                read == *buckets
            }
            _ => false,
        }
    }

    fn written() -> impl Strategy<Value = Written> {
        prop_oneof![
            1 => Just(Written::Begin),
            4 => prop_oneof![Just(0.0), Just(3.0), -1e9..1e9].prop_map(Written::Number),
            2 => (0.0..9.0, prop::collection::vec(prop_oneof![4 => Just(0), 1 => 0_u64..1_000_000, 1 => Just(u64::MAX)], 0..30))
                .prop_map(|(sum, buckets)| Written::Counts(sum, buckets)),
        ]
    }

    proptest! {
        #[test]
        fn what_is_put_in_is_read_back_slot_by_slot(
            slots in prop::collection::btree_map(0_u8..60, written(), 0..60),
            index in 0_u64..1_000_000,
        ) {
            let mut block = Block::new(index);
            for (slot, written) in &slots {
                block.push(*slot, &bytes(written));
            }
            let mut read = block.cells();
            for (slot, written) in &slots {
                let (at, cell) = read.next().expect("a cell for each");
                prop_assert_eq!(at, index * SLOTS + u64::from(*slot));
                prop_assert!(is_read(written, cell), "{:?} became {:?}", written, cell);
            }
            prop_assert!(read.next().is_none());
        }
    }

    #[test]
    fn what_does_not_change_takes_no_room() {
        let mut block = Block::new(0);
        for slot in 0..60 {
            block.push(slot, &bytes(&Written::Number(1.5e9)));
        }
        block.seal();
        assert_eq!(block.bytes.len(), 6);
        assert_eq!(block.cells().count(), 60);
    }

    #[test]
    fn a_slot_that_is_written_is_not_written_again() {
        let mut block = Block::new(0);
        block.push(5, &bytes(&Written::Number(1.0)));
        block.push(5, &bytes(&Written::Number(2.0)));
        block.push(4, &bytes(&Written::Number(2.0)));
        assert_eq!(block.cells().collect::<Vec<_>>(), [(5, Cell::Number(1.0))]);
    }
}
