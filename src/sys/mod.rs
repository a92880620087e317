//! Row 1: the only unsafe code and the only `libc::`. Everything here is safe to call.

#![allow(unsafe_code)]

pub mod file_range;
pub mod message_socket;
pub mod mount_attributes;
pub mod process;
pub mod seccomp;
pub mod syscall_numbers;
