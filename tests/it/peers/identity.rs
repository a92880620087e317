//! Numbers and links: one object is one object, whatever happens to it.

use super::cases;

cases! { "peers_identity.py":
    numbers_stay_through_copy_up_and_remounts
    numbers_stay_through_renames
    a_listing_says_the_numbers_that_stat_says
    links_are_counted_from_the_first_stat
    links_stay_one_file
    links_move_onto_each_other
    a_linked_directory_moves_with_its_links
    a_number_is_not_given_to_two
}
