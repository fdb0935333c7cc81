//! The kernel programs, one file per subject. Each file has one function that does the work and, per rung, one entry
//! of a few lines that finds its arguments.

mod bpf;
mod decide_test;
mod dns;
mod dns_stream;
mod file_change;
mod file_close;
mod file_fault;
mod file_open;
mod file_read;
mod io_uring;
mod local;
mod memory;
mod process;
mod socket;
mod sys_exit;
mod task_iter;
mod tcp;
mod udp;
