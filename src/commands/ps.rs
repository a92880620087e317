//! `layerfs ps`

use super::args::PsArgs;
use super::environment;
use crate::container::view::{self, Width};
use crate::container::{Container, Moment, Status};

/// Prints a table, or ids.
pub(super) fn run(args: &PsArgs) -> anyhow::Result<u8> {
    let store = environment::store()?;
    let mut rows: Vec<(Container, Status)> = Vec::new();
    for container in environment::containers(&store)?.list()? {
        let status = container.status()?;
        if args.all || status.can_stop() {
            rows.push((container, status));
        }
    }
    let width = if args.no_trunc { Width::Full } else { Width::Short };
    if args.quiet {
        for (container, _) in &rows {
            match width {
                Width::Full => println!("{}", container.id()),
                Width::Short => println!("{}", container.id().short()),
            }
        }
    } else {
        print!("{}", view::table(&rows, Moment::now(), width));
    }
    Ok(0)
}
