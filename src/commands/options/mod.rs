//! The options of `layerfs run` and its relatives, one file for each kind: what can be typed, and what is wished for by it.

pub mod life;
pub mod network;
pub mod process;
pub mod resources;
pub mod rights;
pub mod storage;
pub mod userns;
