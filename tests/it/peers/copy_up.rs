//! Copy-up: what a first change may do to an object of a layer, and what it may not.

use super::cases;

cases! { "peers_copy_up.py":
    a_write_beside_a_read_only_descriptor
    a_shared_mapping_writes_to_the_copy
    the_callers_umask
    directories_keep_their_modes
    a_change_inside_keeps_times_above
    times_of_all_kinds_are_kept
    setuid_does_not_survive_a_strangers_write
    setuid_does_not_survive_a_strangers_truncate
    setuid_survives_the_writes_of_root
    setgid_that_never_meant_execution_survives
    truncating_on_open
    shorter_content_leaves_nothing_behind
    truncating_to_every_side_of_a_page
    opening_for_writing_changes_nothing
    a_write_that_is_not_permitted_copies_nothing
    everything_at_once_on_one_file
    a_database_of_a_layer
    copies_of_layers_files_by_the_kernel
    a_here_document
    two_writers_of_different_files_at_once
    two_first_writers_of_one_file
}
