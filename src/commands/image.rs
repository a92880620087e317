//! `layerfs image`, and the commands of one step that deal with images of the store.

use anyhow::bail;

use super::args::InspectArgs;
use super::environment;
use super::image_args::{
    ImageArgs, ImageCommand, ImageExistsArgs, ImagePruneArgs, RmiArgs, TagArgs, UntagArgs,
};
use crate::container::{Moment, size};
use crate::image::{Catalog, CatalogError};
use crate::images::filter::Filters;
use crate::images::pruning::{self, Which};
use crate::images::removal::{self, Force, Removed};
use crate::images::{ImagesError, naming};

/// There is no such image.
const UNKNOWN: u8 = 1;
/// A container uses it.
const IN_USE: u8 = 2;

/// One of them.
pub(super) fn run(args: ImageArgs) -> anyhow::Result<u8> {
    match args.command {
        ImageCommand::Exists(args) => exists(&args),
        ImageCommand::History(args) => super::history::run(&args),
        ImageCommand::Inspect(args) => super::inspect::run(&InspectArgs { image: true, kind: None, ..args }),
        ImageCommand::Ls(args) => super::images::run(&args),
        ImageCommand::Prune(args) => prune(&args),
        ImageCommand::Rm(args) => remove(&args),
        ImageCommand::Tag(args) => tag(&args),
        ImageCommand::Untag(args) => untag(&args),
    }
}

fn exists(args: &ImageExistsArgs) -> anyhow::Result<u8> {
    match Catalog::read(&environment::store()?)?.find(&args.image) {
        Err(CatalogError::Unknown(_)) => Ok(UNKNOWN),
        found => Ok(found.map(|_| 0)?),
    }
}

/// Gives names, in silence as docker and podman do.
pub(super) fn tag(args: &TagArgs) -> anyhow::Result<u8> {
    let store = environment::store()?;
    for name in &args.names {
        naming::tag(&store, &args.image, name)?;
    }
    Ok(0)
}

/// Takes names away, in silence.
pub(super) fn untag(args: &UntagArgs) -> anyhow::Result<u8> {
    naming::untag(&environment::store()?, &args.image, &args.names)?;
    Ok(0)
}

/// Removes images, in docker's words; goes on after a failure. One exit code for all: a failure of another kind than the
/// others is a failure of its own.
pub(super) fn remove(args: &RmiArgs) -> anyhow::Result<u8> {
    let store = environment::store()?;
    let containers = environment::containers(&store)?;
    let force = if args.force { Force::Yes } else { Force::No };
    let mut code = 0;
    let mut done = |result: Result<Removed, ImagesError>| -> anyhow::Result<()> {
        match result {
            Ok(removed) => tell(&removed),
            Err(error) if args.ignore && error.is_unknown() => Ok(()),
            Err(error) => {
                let own = match &error {
                    error if error.is_unknown() => UNKNOWN,
                    error if error.is_in_use() => IN_USE,
                    _ => super::OWN_FAILURE,
                };
                code = if code == 0 || code == own { own } else { super::OWN_FAILURE };
                super::complain(&format!("Error: {}", super::failure::line(&error)));
                Ok(())
            }
        }
    };
    if args.all {
        removal::remove_all(&store, &containers, force)?.into_iter().try_for_each(&mut done)?;
    }
    for text in &args.images {
        done(removal::remove(&store, &containers, text, force))?;
    }
    Ok(code)
}

fn tell(removed: &Removed) -> anyhow::Result<()> {
    let mut text: String = removed.untagged.iter().map(|name| format!("Untagged: {name}\n")).collect();
    text.extend(removed.deleted.map(|id| format!("Deleted: {id}\n")));
    super::print(&text)?;
    if let Some(left) = &removed.left {
        super::complain(left);
    }
    Ok(())
}

fn prune(args: &ImagePruneArgs) -> anyhow::Result<u8> {
    let store = environment::store()?;
    let containers = environment::containers(&store)?;
    if let Some(other) = args
        .filter
        .iter()
        .find(|text| !["until=", "label=", "label!="].iter().any(|key| text.starts_with(key)))
    {
        bail!("--filter {other}: until=TIME, label=KEY[=VALUE] and label!=KEY[=VALUE] are what there is");
    }
    let filters = Filters::parse(&args.filter, &Catalog::default(), Moment::now())?;
    let which = if args.all { Which::Unused } else { Which::Dangling };
    if !args.force {
        let ahead = pruning::look(&store, &containers, which, &filters)?;
        let what = if args.all { "without at least one container using them" } else { "without a name" };
        let warning = format!(
            "WARNING! This will remove all images {what}: {} images, {}.",
            ahead.images.len(),
            size::in_words(ahead.freed.bytes)
        );
        if !super::agreed(&warning)? {
            return Ok(0);
        }
    }
    let pruned = pruning::prune(&store, &containers, which, &filters)?;
    let mut text = String::new();
    if !pruned.images.is_empty() {
        text.push_str("Deleted Images:\n");
    }
    for image in &pruned.images {
        text.extend(image.names().map(|name| format!("untagged: {}\n", name.shown)));
        text.push_str(&format!("deleted: {}\n", image.id));
    }
    if !pruned.images.is_empty() {
        text.push('\n');
    }
    super::print(&format!("{text}Total reclaimed space: {}\n", size::in_words(pruned.freed.bytes)))?;
    if let Some(left) = &pruned.left {
        super::complain(left);
    }
    Ok(0)
}
