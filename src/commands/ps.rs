//! `layerfs ps`

use super::container_args::PsArgs;
use super::environment;
use crate::container::view::{self, Width};
use crate::container::{Container, Moment};

/// Prints a table, or ids.
pub(super) fn run(args: &PsArgs) -> anyhow::Result<u8> {
    let store = environment::store()?;
    let mut rows = environment::containers(&store)?.list_with_status()?;
    rows.retain(|(_, status)| args.all || status.can_stop());
    let width = if args.no_trunc { Width::Full } else { Width::Short };
    if args.quiet {
        let id = |container: &Container| match width {
            Width::Full => container.id().to_string(),
            Width::Short => container.id().short(),
        };
        let ids: String = rows.iter().map(|(container, _)| id(container) + "\n").collect();
        super::print(&ids)?;
    } else {
        super::print(&view::table(&rows, Moment::now(), width))?;
    }
    Ok(0)
}
