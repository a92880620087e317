//! Hostile zstd, xz and bzip2: an error or a layer that can be walked, never a panic.
//!
//! The first byte chooses how the rest begins, so that every input gets behind the magic.
#![no_main]

use libfuzzer_sys::fuzz_target;

/// Enough of each format that a decoder goes on: a frame without window or size, a stream with CRC-32, a stream of the
/// smallest blocks, a table before a frame; and nothing, for inputs that were made by real compressors.
const STARTS: [&[u8]; 5] = [
    b"\x28\xb5\x2f\xfd\x00\x50",
    b"\xfd7zXZ\0\0\x01\x69\x22\xde\x36",
    b"BZh11AY&SY",
    b"\x50\x2a\x4d\x18\x02\0\0\0ab",
    b"",
];

fuzz_target!(|data: &[u8]| {
    let Some((choice, rest)) = data.split_first() else { return };
    let dir = tempfile::tempdir().expect("a temporary directory");
    let blob = [STARTS[usize::from(*choice) % STARTS.len()], rest].concat();
    if layerfs_fuzz::build(dir.path(), &blob).is_ok() {
        layerfs_fuzz::walk(dir.path()).expect("what was built can be read");
    }
});
