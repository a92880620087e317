//! `layerfs load`

use std::io::{self, BufRead as _, BufReader, IsTerminal as _};
use std::path::Path;

use anyhow::{Context as _, ensure};

use super::archive_args::LoadArgs;
use super::environment;
use super::progress::Told;
use crate::image::{self, LoadSource, Loaded};

/// Puts the images of an archive into the store and prints docker's lines about them.
pub(super) fn run(args: &LoadArgs) -> anyhow::Result<u8> {
    let sought = args.platform.sought(Told::unless(args.quiet));
    let loaded = match args.input.as_deref() {
        Some(path) if path != Path::new("-") => {
            image::load(&environment::store()?, LoadSource::Path(path), &args.names, &sought)?
        }
        _ => {
            let stdin = io::stdin();
            ensure!(!stdin.is_terminal(), "cannot read an image from a terminal: use -i FILE, or redirect");
            let mut stdin = BufReader::new(stdin);
            // Nobody is kept from removing images for as long as nothing comes.
            stdin.fill_buf().context("standard input")?;
            let source = LoadSource::Stream(&mut stdin, Path::new("standard input"));
            image::load(&environment::store()?, source, &args.names, &sought)?
        }
    };
    drop(sought);
    super::print(&loaded.iter().map(|one| lines(one, args.quiet)).collect::<String>())?;
    Ok(0)
}

fn lines(loaded: &Loaded, quiet: bool) -> String {
    match loaded.names.as_slice() {
        _ if quiet => format!("{}\n", loaded.config_digest),
        [] => format!("Loaded image ID: {}\n", loaded.config_digest),
        names => names.iter().map(|name| format!("Loaded image: {name}\n")).collect(),
    }
}
