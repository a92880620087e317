//! Limits on what an image may ask of us, each with its reason. Images are hostile input.

/// `NAME_MAX` of every Linux filesystem an upper can be on (limits.h).
pub const NAME_BYTES_MAX: usize = 255;
/// `PATH_MAX` (limits.h): a longer path could be stored but never be opened.
pub const PATH_BYTES_MAX: usize = 4096;
/// A symlink target must fit a path with its terminating NUL (symlink(2)).
pub const LINK_BYTES_MAX: usize = PATH_BYTES_MAX - 1;
/// Directory depth. `PATH_BYTES_MAX` allows 2048; recursion and path walks here are bounded well below it.
pub const DEPTH_MAX: usize = 1000;
/// Entries in one layer. 600 bytes of index each: 6 GB, beyond every image that was ever seen.
pub const LAYER_ENTRIES_MAX: u64 = 10_000_000;
/// Layers in one image. Docker stops at 127; 500 is what kernel overlayfs mounts.
pub const IMAGE_LAYERS_MAX: usize = 500;
/// Uncompressed bytes of one layer: 1 TiB.
pub const LAYER_BYTES_MAX: u64 = 1 << 40;
/// A manifest, config or index document: containerd and docker stop at 4 to 8 MiB.
pub const DOCUMENT_BYTES_MAX: u64 = 8 << 20;
/// One PAX header or GNU long name: 1 MiB, as Go's archive/tar.
pub const PAX_BYTES_MAX: u64 = 1 << 20;
/// `XATTR_SIZE_MAX` (linux/limits.h).
pub const XATTR_VALUE_BYTES_MAX: usize = 65536;
/// `XATTR_NAME_MAX` (linux/limits.h).
pub const XATTR_NAME_BYTES_MAX: usize = 255;
/// Extended attributes of one object: `XATTR_LIST_MAX` (linux/limits.h) bytes of names.
pub const XATTR_LIST_BYTES_MAX: usize = 65536;
