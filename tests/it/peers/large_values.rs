//! The largest names, paths, attributes, offsets, directories.

use super::cases;

cases! { "peers_large_values.py":
    names_of_255_bytes
    deleted_names_of_255_bytes
    symlinks_of_4095_bytes
    paths_of_4095_bytes
    a_hundred_directories_deep
    attributes_of_all_sizes
    offsets_beyond_four_gigabytes
    a_directory_of_ten_thousand_names
    direct_io
}
