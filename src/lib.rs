//! layerfs: container images mounted lazily from their compressed layers, and run, without root.

pub mod model;

pub mod sys;

pub mod index;
pub mod store;

pub mod layer;

pub mod union;
pub mod upper;

pub mod fs;

pub mod fuse;

pub mod mount;

pub mod image;
pub mod launcher;

pub mod container;

pub mod commands;
