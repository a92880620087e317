//! Open files, directories and programs keep their meaning when their names go, move or are copied up.

use super::cases;

cases! { "peers_open_files.py":
    an_unlinked_file_of_a_layer
    an_unlinked_copied_up_file
    an_unlinked_new_file
    a_replaced_file_of_a_layer
    a_replaced_new_file
    a_moved_file_of_a_layer
    a_file_in_a_directory_that_was_removed
    one_of_several_links_is_unlinked
    all_links_of_a_layers_file_are_unlinked_while_it_is_open
    what_is_unlinked_gets_no_name_any_more
    what_is_open_gets_another_name
    a_read_only_descriptor_sees_later_writes
    a_private_mapping_keeps_its_own_pages
    a_mapping_outlives_its_descriptor_and_its_name
    a_program_runs_on_without_its_name
    a_deleted_program_is_started
    many_processes_append
    the_working_directory_is_removed
    an_open_directory_is_removed
    an_open_directory_is_moved
    a_directory_is_read_while_it_changes
    positions_in_a_directory
    a_reader_that_removes_what_it_reads
    tail_follows_a_file_of_a_layer
    inotify_goes_on_after_a_copy_up
    locks_hold_through_a_copy_up
}
