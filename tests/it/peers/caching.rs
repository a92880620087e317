//! The kernel keeps everything; what it keeps is true all the same.

use super::cases;

cases! { "peers_caching.py":
    what_was_not_there_appears
    what_was_there_is_gone
    a_listing_is_never_old
    attributes_follow_every_change
    times_of_a_directory_follow_its_names
    relative_access_times
    space_is_told
    holes_are_found
    many_threads_in_one_directory
}
