//! Row 1: the only unsafe code and the only `libc::`. Everything here is safe to call.

#![allow(unsafe_code)]

pub mod arrival;
pub mod atomic;
pub mod boot;
pub mod bus_error;
pub mod companion;
pub mod credentials;
pub mod daemon;
pub mod fault;
pub mod file_handle;
pub mod file_range;
pub mod files;
pub mod first_process;
pub mod fuse_mount;
pub mod inflate;
pub mod lock;
pub mod memory;
pub mod message_socket;
pub mod mmap;
pub mod mount_attributes;
pub mod mount_table;
#[cfg(test)]
pub mod power;
pub mod probe;
pub mod process;
pub mod scoped;
pub mod sealed;
pub mod seccomp;
pub mod syscall_numbers;
pub mod tar_stream;
pub mod usage;
