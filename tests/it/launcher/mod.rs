//! The launcher alone, on a plain root filesystem of busybox: as root, as a user with id ranges, and with a single id.
//!
//! These tests change to each of those users themselves, so they need root; for others they are skipped.

/// Skips the test when it cannot become the users that it is about.
macro_rules! needs_root {
    () => {
        if !$crate::support::is_root() {
            skip!("starts containers as several users itself, which takes root");
        }
    };
}

mod isolation;
mod lifetime;
mod outcome;
mod support;
