//! The filter of system calls that a plan has: the default one, none, or the user's own.

pub(super) mod oci;
mod table;

use std::borrow::Cow;
use std::io;

pub(super) use table::ARGUMENTS;
pub use table::ProfileError;

use self::table::Users;
use super::capabilities::Capabilities;
use super::failure::{Context as _, Step};
use super::id_maps::IdMaps;
use super::plan::{Plan, Seccomp};
use super::seccomp_docker;
use crate::sys::seccomp::{Architecture, Instruction};

/// A filter, as [`crate::sys::seccomp::install`] takes it.
pub(super) type Filter = Cow<'static, [Instruction]>;

/// What [`table::filter`] gives for the default capabilities, made when this was built (`build.rs`): each start would spend
/// a third of a millisecond on it.
mod ready {
    use super::Instruction;

    include!(concat!(env!("OUT_DIR"), "/default_filters.rs"));
}

/// The filter that a plan has, if any.
pub(super) fn filter_of(plan: &Plan) -> Step<Option<Filter>> {
    let capabilities = plan.capabilities;
    let filter = match (&plan.seccomp, users(plan)) {
        (Seccomp::Unconfined, _) => return Ok(None),
        (Seccomp::Default, Users::Own) if capabilities == Capabilities::DEFAULT => Ok(ready::OWN.into()),
        (Seccomp::Default, Users::Callers) if capabilities == Capabilities::DEFAULT => {
            Ok(ready::CALLERS.into())
        }
        (Seccomp::Default, users) => table::filter(Architecture::OWN, capabilities, users).map(Filter::Owned),
        (Seccomp::Profile(text), _) => {
            seccomp_docker::filter(text, Architecture::OWN, capabilities).map(Filter::Owned)
        }
    };
    filter.map(Some).map_err(io::Error::other).stage("seccomp")
}

/// What a plan's filter is in the configuration of an OCI runtime, if there is one.
pub(super) fn oci_of(plan: &Plan) -> Result<Option<serde_json::Value>, ProfileError> {
    match &plan.seccomp {
        Seccomp::Default => oci::of_table(plan.capabilities, users(plan)).map(Some),
        Seccomp::Unconfined => Ok(None),
        Seccomp::Profile(text) => seccomp_docker::oci(text, plan.capabilities).map(Some),
    }
}

fn users(plan: &Plan) -> Users {
    if plan.id_maps == IdMaps::Identity && plan.own_ids.is_none() { Users::Callers } else { Users::Own }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_ready_is_what_the_table_says() {
        for (users, ready) in [(Users::Own, ready::OWN), (Users::Callers, ready::CALLERS)] {
            let made = table::filter(Architecture::OWN, Capabilities::DEFAULT, users).unwrap();
            assert!(made == ready, "{users:?}");
        }
    }
}
