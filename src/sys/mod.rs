//! Row 1: the only unsafe code and the only `libc::`. Everything here is safe to call.

#![allow(unsafe_code)]

pub mod file_range;
pub mod inflate;
pub mod mmap;
pub mod publish;
