//! layerfs
fn main() {}
