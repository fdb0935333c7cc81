//! The binary: one name for the daemon and every tool around it.

fn main() {}
