//! The slots of one series at one resolution, the oldest forgotten.
//!
//! All in one piece of memory, as a piece for each block would cost more than what most blocks hold. Of each block of sixty slots stand
//! there its number and its length, four bytes each, least byte first; then its cells as in `cell`. A block can be read without those before
//! it, so that the oldest can go.

use super::cell::{self, Cell, GAP, MOST_GAP, MOST_REPEATS};

/// Slots of one block.
const SLOTS: u64 = 60;

const HEAD: usize = 8;

/// Memory is asked for in small steps: to double it would leave a quarter of all unused.
const LEAST_GROWTH: usize = 24;

/// A resolution, and how far back it goes.
#[derive(Debug, PartialEq, Eq)]
pub struct Grid {
    pub step_ns: u64,
    pub keep_slots: u64,
}

impl Grid {
    pub const fn slot(&self, boot_ns: u64) -> u64 {
        boot_ns / self.step_ns
    }

    pub const fn length_ns(&self) -> u64 {
        self.step_ns * self.keep_slots
    }
}

#[derive(Debug)]
pub struct Ring {
    pub grid: &'static Grid,
    bytes: Vec<u8>,
    /// Where the newest block begins; there is none where there are no bytes.
    newest: u32,
    /// Where in the newest block the last cell is that was written out.
    last: (u32, u32),
    /// Slots of the newest block that are written.
    slots: u8,
    /// Whether the last byte says how often the last cell is repeated.
    is_repeating: bool,
}

impl Ring {
    pub fn new(grid: &'static Grid) -> Self {
        Self { grid, bytes: Vec::new(), newest: 0, last: (0, 0), slots: 0, is_repeating: false }
    }

    /// Puts the cell of these bytes into a slot. Slots come in ascending order; one before the last is too late.
    pub fn push(&mut self, slot: u64, cell: &[u8]) {
        self.expire(slot);
        let index = short(slot / SLOTS);
        let newest = self.block(self.newest as usize).map(|(index, _)| index);
        match newest {
            Some(newest) if newest > index => return,
            Some(newest) if newest == index => {}
            _ => {
                (self.newest, self.last, self.slots, self.is_repeating) =
                    (short(self.bytes.len() as u64), (0, 0), 0, false);
                self.write(&index.to_le_bytes());
                self.write(&[0; 4]);
            }
        }
        self.put((slot % SLOTS) as u8, cell);
        let start = self.newest as usize;
        let length = short((self.bytes.len() - start - HEAD) as u64);
        self.bytes[start + 4..start + HEAD].copy_from_slice(&length.to_le_bytes());
    }

    fn put(&mut self, slot: u8, cell: &[u8]) {
        let Some(mut gap) = slot.checked_sub(self.slots) else { return };
        while gap > 0 {
            let run = gap.min(MOST_GAP - GAP + 1);
            self.write(&[GAP + run - 1]);
            self.is_repeating = false;
            gap -= run;
        }
        self.slots = slot + 1;
        let last = self.last.0 as usize..self.last.1 as usize;
        if last.is_empty() || self.bytes[last] != *cell {
            let start = self.bytes.len();
            self.write(cell);
            self.last = (short(start as u64), short(self.bytes.len() as u64));
            self.is_repeating = false;
            return;
        }
        match self.bytes.last_mut() {
            Some(run) if self.is_repeating && *run < MOST_REPEATS => *run += 1,
            _ => self.write(&[0]),
        }
        self.is_repeating = true;
    }

    fn write(&mut self, bytes: &[u8]) {
        let room = self.bytes.capacity() - self.bytes.len();
        if room < bytes.len() {
            self.bytes.reserve_exact(bytes.len().max(LEAST_GROWTH).max(self.bytes.len() / 16));
        }
        self.bytes.extend_from_slice(bytes);
    }

    /// The number of the block that begins there, and where it ends.
    fn block(&self, start: usize) -> Option<(u32, usize)> {
        let (head, _) = self.bytes.get(start..)?.split_first_chunk::<HEAD>()?;
        let [a, b, c, d, lengths @ ..] = *head;
        let length = u32::from_le_bytes(lengths) as usize;
        Some((u32::from_le_bytes([a, b, c, d]), start + HEAD + length))
    }

    /// Forgets blocks all of whose slots are older than is kept, as of this slot.
    pub fn expire(&mut self, slot: u64) {
        let oldest = slot.saturating_sub(self.grid.keep_slots);
        let mut end = 0;
        while let Some((index, after)) = self.block(end)
            && (u64::from(index) + 1) * SLOTS <= oldest
        {
            end = after;
        }
        self.forget_until(end);
    }

    /// False when there was nothing.
    pub fn forget_oldest(&mut self) -> bool {
        let end = self.block(0).map_or(0, |(_, end)| end);
        self.forget_until(end);
        end > 0
    }

    fn forget_until(&mut self, end: usize) {
        if end == 0 {
            return;
        }
        if end >= self.bytes.len() {
            self.clear();
            return;
        }
        self.bytes.drain(..end);
        let end = short(end as u64);
        self.newest -= end;
        self.last = (self.last.0.saturating_sub(end), self.last.1.saturating_sub(end));
        // As much again will be written: only what is much too long is given back.
        if self.bytes.capacity() > 2 * self.bytes.len() + HEAD * LEAST_GROWTH {
            self.bytes.shrink_to(self.bytes.len() + LEAST_GROWTH);
        }
    }

    pub fn clear(&mut self) {
        *self = Self::new(self.grid);
    }

    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    pub fn size_bytes(&self) -> usize {
        self.bytes.capacity()
    }

    /// Of slots from `first` to `last`: `(slot, cell)`, ascending, gaps left out.
    pub fn cells(&self, first: u64, last: u64) -> impl Iterator<Item = (u64, Cell<'_>)> {
        let mut start = 0;
        let blocks = std::iter::from_fn(move || {
            let (index, end) = self.block(start)?;
            let cells = self.bytes.get(start + HEAD..end)?;
            start = end;
            Some((u64::from(index) * SLOTS, cells))
        });
        let within = blocks.filter(move |(begin, _)| begin + SLOTS > first && *begin <= last);
        within.flat_map(|(begin, bytes)| cells_of(begin, bytes)).filter(move |(slot, _)| (first..=last).contains(slot))
    }
}

fn cells_of(begin: u64, bytes: &[u8]) -> impl Iterator<Item = (u64, Cell<'_>)> {
    let mut rest = bytes;
    let mut slot = begin;
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
                    let (cell, after) = cell::read(rest)?;
                    (last, rest, slot) = (Some(cell), after, slot + 1);
                    return Some((slot - 1, cell));
                }
            }
        }
    })
}

/// A track has some hundred slots, of some thousand buckets at most.
fn short(number: u64) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
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
            Written::Begin => cell::begin(&mut out),
            Written::Number(value) => cell::number(*value, &mut out),
            Written::Counts(sum, buckets) => cell::counts(*sum, buckets, &mut out),
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
            slots in prop::collection::btree_map(1000_u64..1400, written(), 0..300),
            forget in 0..3,
        ) {
            let mut ring = Ring::new(&GRID);
            for (slot, written) in &slots {
                ring.push(*slot, &bytes(written));
            }
            (0..forget).for_each(|_| assert!(ring.forget_oldest() || ring.is_empty()));
            let read: Vec<(u64, Cell<'_>)> = ring.cells(0, u64::MAX).collect();
            let newest = slots.keys().next_back().copied().unwrap_or_default();
            let kept: Vec<(&u64, &Written)> = slots.iter().rev().take(read.len()).collect();
            for ((at, cell), (slot, written)) in read.iter().rev().zip(&kept) {
                prop_assert_eq!(at, *slot);
                prop_assert!(is_read(written, *cell), "{:?} became {:?}", written, cell);
            }
            // What is kept is there, and not much more.
            let oldest = kept.last().map_or(newest, |(slot, _)| **slot);
            prop_assert!(oldest + GRID.keep_slots + SLOTS >= newest);
            let wanted = slots.range(newest.saturating_sub(GRID.keep_slots) + 1..).count();
            prop_assert!(forget > 0 || read.len() >= wanted, "{} of {}", read.len(), wanted);
        }
    }

    static GRID: Grid = Grid { step_ns: 1, keep_slots: 150 };

    #[test]
    fn what_does_not_change_takes_no_room() {
        let mut ring = Ring::new(&GRID);
        (0..60).for_each(|slot| ring.push(slot, &bytes(&Written::Number(1.5e9))));
        assert_eq!(ring.bytes.len(), HEAD + 6);
        assert_eq!(ring.cells(0, 100).count(), 60);
    }

    #[test]
    fn a_slot_that_is_written_is_not_written_again() {
        let mut ring = Ring::new(&GRID);
        ring.push(65, &bytes(&Written::Number(1.0)));
        for late in [65, 64, 5] {
            ring.push(late, &bytes(&Written::Number(2.0)));
        }
        assert_eq!(ring.cells(0, 100).collect::<Vec<_>>(), [(65, Cell::Number(1.0))]);
    }
}
