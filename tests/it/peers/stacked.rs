//! What another overlay needs that is stacked upon the mount.

use super::cases;

cases! { "peers_stacked.py":
    a_rename_leaves_a_whiteout
}
