//! `layerfs complete`

use anyhow::bail;

use super::args::CompleteArgs;
use super::progress::Told;
use super::{environment, mount};
use crate::container::completing;
use crate::mount::{Caches, UpperDirs};

/// Copies what the changes of a container, or of a directory given with `--upper`, still share with the image's layers.
pub(super) fn run(args: &CompleteArgs) -> anyhow::Result<u8> {
    let store = environment::store()?;
    match (&args.container, &args.upper, &args.image) {
        (Some(text), ..) => {
            let containers = environment::containers(&store)?;
            let held = containers.hold(containers.find(text)?)?;
            let image = mount::image_of(held.config(), &store, Told::Progress)?;
            completing::complete(&held, mount::open_layers(&store, &image, Caches::default())?)?;
            super::print(&format!("{}\n", held.id()))?;
        }
        (None, Some(dir), Some(image)) => {
            let image = args.platform.open(image, &store, Told::Progress)?;
            completing::complete_upper(
                &UpperDirs::below(dir),
                mount::open_layers(&store, &image, Caches::default())?,
            )?;
        }
        (None, ..) => bail!("what? give --container ID, or --upper DIR and the IMAGE that it belongs to"),
    }
    Ok(0)
}
