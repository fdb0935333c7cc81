//! How an attachment says which function it is of, and where its arguments are.

/// What is to be done at a function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Action {
    /// A communicator's beginning, with a `ncclUniqueId` that lies on the stack: places are `[out, nranks, rank, id]`.
    InitByValue = 0,
    /// The same with a pointer to the id.
    InitByPointer = 1,
    /// All ranks of one process at once: `[comms, ndev]`.
    InitAll = 2,
    /// A communicator of those members of another that name one colour, ordered by key: `[out, parent, color, key]`.
    Split = 3,
    /// A communicator of those members of another that are not excluded: `[out, parent, excluded, how many of them]`.
    Shrink = 4,
    /// A communicator of the members of another, who keep their ranks, and more, who have no parent: `[out, parent, nranks, rank]`.
    Grow = 5,
    /// Its end: `[comm]`.
    End = 6,
    /// All members take part: `[comm, count, datatype, stream]`.
    Collective = 7,
    /// One to one: `[comm, count, datatype, stream]`.
    PointToPoint = 8,
    GroupStart = 9,
    GroupEnd = 10,
    /// NCCL says which rank the caller is: `[comm, out]`.
    TellRank = 11,
    /// NCCL says of how many ranks: `[comm, out]`.
    TellRanks = 12,
    /// NCCL says what went wrong since the last call: `[comm, out]`.
    TellError = 13,
}

/// Arguments of a function that matter.
pub const PLACES: usize = 4;

/// Where an argument is at a function's entry: a register for arguments, by its number, or a word of the stack behind the return address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    Register(u8),
    Stack(u8),
    Nowhere,
}

/// Registers that the four bits of a place can tell of.
const REGISTERS: u8 = 8;
const NOWHERE: u8 = 15;

impl Place {
    const fn to_bits(self) -> u8 {
        match self {
            Self::Register(number) => number & (REGISTERS - 1),
            Self::Stack(word) => REGISTERS + word % (NOWHERE - REGISTERS),
            Self::Nowhere => NOWHERE,
        }
    }

    pub const fn from_bits(bits: u8) -> Self {
        match bits & 15 {
            NOWHERE => Self::Nowhere,
            word if word >= REGISTERS => Self::Stack(word - REGISTERS),
            number => Self::Register(number),
        }
    }
}

/// Which function an attachment is of, as 64 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cookie {
    pub function: u8,
    pub action: u8,
    places: u16,
}

impl Cookie {
    pub fn new(function: u8, action: Action, places: [Place; PLACES]) -> Self {
        let places = places.iter().rev().fold(0, |bits, place| bits << 4 | u16::from(place.to_bits()));
        Self { function, action: action as u8, places }
    }

    pub const fn to_bits(self) -> u64 {
        self.function as u64 | (self.action as u64) << 8 | (self.places as u64) << 16
    }

    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "bytes and words of it")]
    pub const fn from_bits(bits: u64) -> Self {
        Self { function: bits as u8, action: (bits >> 8) as u8, places: (bits >> 16) as u16 }
    }

    /// The bits of a place; [`Place::from_bits`] reads them.
    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "four bits")]
    pub const fn place(self, number: u32) -> u8 {
        (self.places >> (4 * number)) as u8 & 15
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cookie_says_what_it_was_made_of() {
        let places = [Place::Register(5), Place::Stack(0), Place::Stack(6), Place::Nowhere];
        let cookie = Cookie::from_bits(Cookie::new(9, Action::Collective, places).to_bits());
        let read: [Place; PLACES] =
            core::array::from_fn(|at| Place::from_bits(cookie.place(u32::try_from(at).unwrap_or(0))));
        assert_eq!((cookie.function, cookie.action, read), (9, Action::Collective as u8, places));
    }
}
