//! What is deleted stays deleted, what is made again is new, and no mark of ours is anybody else's.

use super::cases;

cases! { "peers_whiteouts.py":
    each_layer_hides_what_is_below_it
    a_directory_is_removed_and_made_anew
    everything_in_turn_at_one_name
    directory_over_file_over_directory
    noreplace_over_what_was_deleted
    new_files_leave_no_trace
    everything_is_removed
    names_that_mean_whiteouts_elsewhere
    a_device_of_a_programs_own_hides_nothing
    marks_cannot_be_forged
}
