//! The programs at functions of libraries, one file per library.

mod cuda;
