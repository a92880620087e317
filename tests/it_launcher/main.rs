//! The launcher on a plain root filesystem of busybox: as root, as a user with id ranges, and with a single id.

mod isolation;
mod lifetime;
mod outcome;
mod support;
