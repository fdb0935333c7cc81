//! Ranges of ports as the kernel's trie has them.

use std::ops::RangeInclusive;

/// A range of ports as prefixes: each begins with some bits, and has all ports that do.
pub fn prefixes(range: &RangeInclusive<u16>) -> Vec<(u16, u8)> {
    let (mut first, last) = (u32::from(*range.start()), u32::from(*range.end()));
    let mut found = Vec::new();
    while first <= last {
        // The largest aligned block that begins here and does not go too far.
        let aligned = if first == 0 { 16 } else { first.trailing_zeros().min(16) };
        let fitting = (last - first + 1).ilog2();
        let free = aligned.min(fitting);
        found.push((u16::try_from(first).unwrap_or(u16::MAX), u8::try_from(16 - free).unwrap_or(16)));
        first += 1 << free;
    }
    found
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn prefixes_are_the_range_and_nothing_twice(a: u16, b: u16) {
            let range = a.min(b)..=a.max(b);
            let mut ports: Vec<u16> = Vec::new();
            for (first, bits) in prefixes(&range) {
                let last = u32::from(first) + (1 << (16 - u32::from(bits))) - 1;
                prop_assert_eq!(u32::from(first) % (1 << (16 - u32::from(bits))), 0);
                ports.extend(first..=u16::try_from(last).unwrap());
            }
            prop_assert_eq!(ports, range.collect::<Vec<_>>());
        }
    }
}
