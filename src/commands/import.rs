//! `layerfs import`

use std::fs::File;
use std::io::{self, BufRead as _, IsTerminal as _, Read};
use std::path::Path;

use anyhow::{Context as _, ensure};

use super::archive_args::ImportArgs;
use super::environment;
use super::progress::{Indexing, Told};
use crate::builder::{self, ImportSpec};
use crate::image;

/// Makes an image of a root filesystem and prints its id.
pub(super) fn run(args: &ImportArgs) -> anyhow::Result<u8> {
    let text = args.file.display().to_string();
    let is_url = ["http://", "https://"].iter().any(|scheme| text.starts_with(scheme));
    ensure!(!is_url, "{text}: downloading is not supported: run `curl -L {text} | layerfs import -`");
    let is_stdin = args.file == Path::new("-");
    let mut source: Box<dyn Read> = if is_stdin {
        ensure!(!io::stdin().is_terminal(), "cannot read a tar from a terminal: name a file, or redirect");
        let mut stdin = io::stdin().lock();
        // Nobody is kept from removing images for as long as nothing comes.
        stdin.fill_buf().context("standard input")?;
        Box::new(stdin)
    } else {
        Box::new(File::open(&args.file).with_context(|| format!("cannot open {text}"))?)
    };
    let spec = ImportSpec {
        name: args.name.clone(),
        changes: args.change.clone(),
        message: args.message.clone().unwrap_or_else(|| format!("Imported from {text}")),
        os: args.os.clone(),
        architecture: args.arch.clone().unwrap_or_else(|| image::host_architecture().to_owned()),
        variant: args.variant.clone(),
        place: if is_stdin { "standard input".into() } else { args.file.clone() },
    };
    let progress = Indexing::quiet_or_any(Told::unless(args.quiet));
    let written = builder::import(&environment::store()?, &mut *source, &spec, &progress)?;
    super::print(&format!("{}\n", written.config_digest))?;
    Ok(0)
}
