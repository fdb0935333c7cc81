//! What end-to-end tests share: the bench that runs the real kernel programs and waits for their events.
//!
//! A test here must not be confused by the rest of the machine: it looks only at events of its own process or its own
//! children.

pub mod bench;
pub mod checks;
