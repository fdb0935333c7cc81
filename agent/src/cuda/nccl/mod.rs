//! What processes ask of NCCL: who belongs to which communicator, what goes through it, and who comes last.
//!
//! | file | its one job |
//! |---|---|
//! | `functions` | the table of what is looked at; a new function is one row |
//! | `place` | where a function's arguments are, by the machine's calling convention |
//! | `coverage` | how much of it is seen when it is done |
//! | `account` | what the kernel counted, as points |
//! | `warning` | a line of NCCL's log that is a warning |
//! | `logs` | the files that such lines end up in |

pub mod account;
pub mod coverage;
pub mod functions;
pub mod logs;
mod place;
mod warning;

pub use place::Machine;
