//! What processes ask of NCCL: who belongs to which communicator, what goes through it, and who comes last.
//!
//! | file | its one job |
//! |---|---|
//! | `functions` | the table of what is looked at; a new function is one row |
//! | `place` | where a function's arguments are, by the machine's calling convention |
//! | `coverage` | how much of it is seen when it is done |
//! | `account` | what the kernel counted, as points |
//! | `warning` | a line of NCCL's log that is a warning |
//! | `ras/` | what NCCL's own RAS knows of ranks, those of other nodes among them |
//! | `inspector` | what NCCL's own Inspector measures |
//! | `logs` | the files that such lines end up in |
//! | `journal` | journald, in which they may end up too |

pub mod account;
pub mod coverage;
pub mod functions;
pub mod inspector;
mod journal;
pub mod logs;
mod place;
pub mod ras;
mod warning;

pub use place::Machine;
