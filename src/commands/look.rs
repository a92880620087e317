//! `layerfs ls`, `tree`, `cat` and `which`.

use std::io::{self, BufWriter, IsTerminal as _, StdoutLock, Write as _};
use std::os::unix::ffi::OsStrExt as _;

use anyhow::Context as _;

use super::args::PlatformArg;
use super::look_args::{CatArgs, LsArgs, TreeArgs, WhichArgs};
use super::progress::Told;
use super::{environment, failure, mount};
use crate::image::Image;
use crate::look::{self, Listing, LookError, Quoting};
use crate::mount::{Caches, Layers};

/// A path that cannot be shown, as ls(1) and cat(1) have it.
const NO_SUCH: u8 = 1;

pub(super) fn ls(args: &LsArgs) -> anyhow::Result<u8> {
    let (_, layers) = open(&args.platform, &args.image)?;
    let (long, recursive, json) = (args.long, args.recursive, args.json);
    let listing = Listing { long, recursive, json, quoting: quoting() };
    let mut out = Out::new();
    let done = look::list(layers.union(), args.path.as_bytes(), listing, &mut |bytes| out.write(bytes));
    out.end("ls", done)
}

pub(super) fn tree(args: &TreeArgs) -> anyhow::Result<u8> {
    let (_, layers) = open(&args.platform, &args.image)?;
    let mut out = Out::new();
    let path = args.path.as_bytes();
    let sink = &mut |bytes: &[u8]| out.write(bytes);
    let done = look::tree(layers.union(), path, args.levels, args.json, quoting(), sink);
    out.end("tree", done)
}

/// Goes on with the next file after one that cannot be read, as cat(1) does.
pub(super) fn cat(args: &CatArgs) -> anyhow::Result<u8> {
    let (_, layers) = open(&args.platform, &args.image)?;
    let mut code = 0;
    for path in &args.paths {
        let mut out = Out::new();
        let done = look::cat(layers.union(), path.as_bytes(), &mut |bytes| out.write(bytes));
        if matches!(&done, Err(LookError::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe) {
            return Ok(code);
        }
        code = code.max(out.end("cat", done)?);
    }
    Ok(code)
}

pub(super) fn which(args: &WhichArgs) -> anyhow::Result<u8> {
    let (image, layers) = open(&args.platform, &args.image)?;
    let origin = match look::which(&image, layers.union(), args.path.as_bytes()) {
        Ok(origin) => origin,
        Err(error) => return Out::new().end("which", Err(error)),
    };
    if args.json {
        super::print_json(&format!("{:#}", origin.json()))?;
    } else {
        super::print(&origin.text())?;
    }
    Ok(if origin.is_visible { 0 } else { NO_SUCH })
}

fn open(platform: &PlatformArg, spec: &str) -> anyhow::Result<(Image, Layers)> {
    let store = environment::store()?;
    let image = platform.open(spec, &store, Told::Progress)?;
    let layers = mount::open_layers(&store, &image, Caches::default())?;
    Ok((image, layers))
}

/// As ls(1): a terminal must not obey what a file is called, a program wants the name.
fn quoting() -> Quoting {
    if io::stdout().is_terminal() { Quoting::Shell } else { Quoting::Raw }
}

/// Standard output, in large pieces.
struct Out(BufWriter<StdoutLock<'static>>);

impl Out {
    fn new() -> Self {
        Self(BufWriter::with_capacity(1 << 16, io::stdout().lock()))
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.0.write_all(bytes)
    }

    /// The exit code. A reader that has gone has got what it wanted.
    fn end(mut self, command: &str, done: Result<(), LookError>) -> anyhow::Result<u8> {
        let flushed = self.0.flush();
        let written = match done {
            Err(LookError::Output(error)) => Err(error),
            Err(error) => {
                super::complain(&format!("layerfs {command}: {}", failure::line(&error)));
                return Ok(NO_SUCH);
            }
            Ok(()) => flushed,
        };
        match written {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(0),
            other => other.map(|()| 0).context("standard output"),
        }
    }
}
