//! mount.layerfs
fn main() {}
