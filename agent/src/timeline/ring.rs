//! The slots of one series at one resolution, the oldest forgotten.

use std::collections::VecDeque;

use super::block::{Block, Cell, SLOTS};

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
    blocks: VecDeque<Block>,
    /// What the blocks take.
    size_bytes: usize,
}

impl Ring {
    pub fn new(grid: &'static Grid) -> Self {
        Self { grid, blocks: VecDeque::new(), size_bytes: 0 }
    }

    /// Slots come in ascending order.
    pub fn push(&mut self, slot: u64, cell: &[u8]) {
        self.expire(slot);
        let index = slot / SLOTS;
        if self.blocks.back().is_none_or(|block| block.index < index) {
            if let Some(full) = self.blocks.back_mut() {
                self.size_bytes -= full.size_bytes();
                full.seal();
                self.size_bytes += full.size_bytes();
            }
            let block = Block::new(index);
            self.size_bytes += block.size_bytes();
            self.blocks.push_back(block);
        }
        if let Some(block) = self.blocks.back_mut().filter(|block| block.index == index) {
            self.size_bytes -= block.size_bytes();
            block.push((slot % SLOTS) as u8, cell);
            self.size_bytes += block.size_bytes();
        }
    }

    /// Forgets blocks all of whose slots are older than is kept, as of this slot.
    pub fn expire(&mut self, slot: u64) {
        let oldest = slot.saturating_sub(self.grid.keep_slots);
        while self.blocks.front().is_some_and(|block| (block.index + 1) * SLOTS <= oldest) {
            self.forget_oldest();
        }
    }

    /// False when there was nothing.
    pub fn forget_oldest(&mut self) -> bool {
        let oldest = self.blocks.pop_front();
        self.size_bytes -= oldest.as_ref().map_or(0, Block::size_bytes);
        oldest.is_some()
    }

    pub fn clear(&mut self) {
        self.blocks.clear();
        self.size_bytes = 0;
    }

    pub fn is_empty(&self) -> bool {
        self.blocks.is_empty()
    }

    pub fn size_bytes(&self) -> usize {
        self.size_bytes
    }

    /// Of slots from `first` to `last`.
    pub fn cells(&self, first: u64, last: u64) -> impl Iterator<Item = (u64, Cell<'_>)> {
        let blocks =
            self.blocks.iter().filter(move |block| (block.index + 1) * SLOTS > first && block.index * SLOTS <= last);
        blocks.flat_map(Block::cells).filter(move |(slot, _)| (first..=last).contains(slot))
    }
}
