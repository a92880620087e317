//! Everything that needs a mount or a process: the built binary against real images.
//!
//! Each test runs as whoever runs this binary; `scripts/test` runs it as root, as a user with subordinate ids and as one
//! without. A test that cannot run here says why and counts as skipped.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]
#![allow(clippy::print_stdout, reason = "skipped tests say so")]

#[macro_use]
mod support;

mod archives;
mod attach;
mod attributes;
mod background;
mod bad_input;
mod bounds;
mod build;
mod cgroups;
mod changes;
mod containers;
mod corpus;
mod corrupt;
mod cp;
mod credentials;
mod diff;
mod doctor;
mod encodings;
mod exec;
mod extents;
mod faults;
mod foreign;
mod forms;
mod full;
mod images;
mod imported;
mod isolation;
mod kills;
mod launcher;
mod lazy;
mod life;
mod lifecycle;
mod lists;
mod look;
mod mount_equal;
mod mount_helper;
mod mount_program;
mod network;
mod passthrough;
mod peers;
mod posix;
mod push;
mod random;
mod real_images;
mod registry;
mod rights;
mod run;
mod runtime;
mod setuid;
mod spill;
mod stats;
mod stress;
mod surroundings;
mod survive;
mod updates;
mod userns;
mod views;
mod volumes;
mod writeback;
