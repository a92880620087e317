//! What real programs do, as they do it.

use super::cases;

cases! { "peers_programs.py":
    files_without_a_name
    written_beside_and_renamed
    backups_by_link
    a_git_repository
    an_archive_is_unpacked_over_the_layers
    removed_by_rm
    changed_in_place
    sockets_and_fifos
    owners_are_changed_for_all
    capabilities_of_files
    acls_are_inherited
}
