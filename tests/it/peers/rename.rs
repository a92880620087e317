//! Directories of layers are renamed as on any other filesystem.

use super::cases;

cases! { "peers_rename.py":
    a_directory_of_a_layer
    a_merged_directory
    there_and_back
    far_down
    onto_empty_directories
    onto_directories_that_were_emptied
    what_is_refused
    exchange_of_all_kinds
    with_files_open_inside
    nothing_is_copied
    over_what_is_open
    mixed_with_removal_and_creation
    a_name_left_behind_is_free
    sticky_directories
}
