//! The log as its users meet it: written, read, damaged, recovered, verified.

mod commands;
mod documentation;
mod reading;
mod recovery;
mod support;
mod tampering;
mod writing;
