//! Where a function's arguments are at its entry, where all are integers or pointers but one structure of more than 16 bytes.
//!
//! x86-64 (System V ABI 1.0, 3.2.3): six registers; the structure lies on the stack and takes no register; what has no register follows on
//! the stack, from behind the return address. arm64 (AAPCS64, 6.8.2): eight registers; the structure is a copy somewhere, and the argument
//! its address.

use plumbline_ebpf::nccl::Place;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Machine {
    X86_64,
    Arm64,
}

impl Machine {
    pub const HERE: Self = if cfg!(target_arch = "aarch64") { Self::Arm64 } else { Self::X86_64 };

    const fn registers(self) -> u8 {
        match self {
            Self::X86_64 => 6,
            Self::Arm64 => 8,
        }
    }

    /// Whether the structure is reached by a pointer.
    pub const fn passes_structures_by_pointer(self) -> bool {
        matches!(self, Self::Arm64)
    }

    /// The place of the argument of this number, counted from 0, of a function of which `structure` is a structure. Of the structure itself
    /// it is where it begins, or its pointer.
    pub fn place(self, number: u8, structure: Option<u8>) -> Place {
        let by_value = structure.filter(|_| !self.passes_structures_by_pointer());
        if by_value == Some(number) {
            // Nothing of NCCL's has it behind six others.
            return Place::Stack(0);
        }
        let before = u8::from(by_value.is_some_and(|structure| structure < number));
        match number - before {
            register if register < self.registers() => Place::Register(register),
            word => Place::Stack(word - self.registers()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_beyond_the_registers_are_on_the_stack() {
        let place = |machine: Machine, number| machine.place(number, None);
        assert_eq!(place(Machine::X86_64, 5), Place::Register(5));
        assert_eq!(place(Machine::X86_64, 6), Place::Stack(0));
        assert_eq!(place(Machine::X86_64, 7), Place::Stack(1));
        assert_eq!(place(Machine::Arm64, 6), Place::Register(6));
        assert_eq!(place(Machine::Arm64, 7), Place::Register(7));
    }

    #[test]
    fn a_structure_takes_no_register_on_x86_and_is_a_pointer_on_arm64() {
        // ncclCommInitRank(comm*, nranks, id, rank)
        let places = |machine: Machine| [0, 1, 2, 3].map(|number| machine.place(number, Some(2)));
        assert_eq!(
            places(Machine::X86_64),
            [Place::Register(0), Place::Register(1), Place::Stack(0), Place::Register(2)]
        );
        assert_eq!(places(Machine::Arm64), [0, 1, 2, 3].map(Place::Register));
    }
}
