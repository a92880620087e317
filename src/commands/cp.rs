//! `layerfs cp`

use std::ffi::OsStr;
use std::io::{self, IsTerminal as _, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail, ensure};

use super::container_args::CpArgs;
use super::environment;
use super::files::inside;
use crate::container::copying::{self, HostSide, Links, Owners};

/// One side of a copy.
#[derive(Debug, PartialEq, Eq)]
enum Side<'a> {
    Container { name: &'a str, path: &'a Path },
    Host(HostSide),
}

/// Copies files, and says how much that was to who sits at a terminal.
pub(super) fn run(args: &CpArgs) -> anyhow::Result<u8> {
    let owners = if args.archive { Owners::Kept } else { Owners::Receivers };
    let links = if args.follow_link { Links::Followed } else { Links::Kept };
    let store = environment::store()?;
    let containers = environment::containers(&store)?;
    let copied = match (side(&args.source)?, side(&args.destination)?) {
        (Side::Container { .. }, Side::Container { .. }) => {
            bail!("copying between containers is not supported: cp A:PATH - | cp - B:PATH")
        }
        (Side::Host(_), Side::Host(_)) => bail!("one of SRC and DEST has to be CONTAINER:PATH"),
        (Side::Container { name, path }, Side::Host(to)) => {
            let is_terminal = to == HostSide::Stream && io::stdout().is_terminal();
            ensure!(!is_terminal, "a tar stream does not belong on a terminal: redirect the output");
            let inside = inside(&store, &containers, name)?;
            copying::out_of(inside, path, &to, (owners, links))
        }
        (Side::Host(from), Side::Container { name, path }) => {
            let inside = inside(&store, &containers, name)?;
            copying::into(inside, path, &from, (owners, links))
        }
    }?;
    if let Some(bytes) = copied.filter(|_| !args.quiet && io::stderr().is_terminal()) {
        let to = args.destination.display();
        // Nobody is left to tell that nobody listens.
        writeln!(io::stderr(), "Successfully copied {bytes} bytes to {to}").ok();
    }
    Ok(0)
}

/// As docker tells paths from containers: what begins with `.` or `/`, or has no colon, is a path of the host.
fn side(text: &OsStr) -> anyhow::Result<Side<'_>> {
    let bytes = text.as_bytes();
    ensure!(!bytes.is_empty(), "an empty path");
    if bytes == b"-" {
        return Ok(Side::Host(HostSide::Stream));
    }
    let colon = bytes.iter().position(|byte| *byte == b':').filter(|_| !matches!(bytes[0], b'/' | b'.'));
    let Some(colon) = colon else { return Ok(Side::Host(HostSide::Path(PathBuf::from(text)))) };
    let name = std::str::from_utf8(&bytes[..colon]).context("the name of a container is text")?;
    let path = &bytes[colon + 1..];
    ensure!(!name.is_empty() && !path.is_empty(), "{}: not CONTAINER:PATH", text.display());
    Ok(Side::Container { name, path: Path::new(OsStr::from_bytes(path)) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sides() {
        let host = |path: &str| Side::Host(HostSide::Path(path.into()));
        let of = |text: &'static str| side(OsStr::new(text)).unwrap();
        assert_eq!(of("-"), Side::Host(HostSide::Stream));
        for path in ["/a:b", "./a:b", "../a:b", "a", ".", ".hidden:x"] {
            assert_eq!(side(OsStr::new(path)).unwrap(), host(path));
        }
        assert_eq!(of("box:/etc"), Side::Container { name: "box", path: Path::new("/etc") });
        assert_eq!(of("box:a:b"), Side::Container { name: "box", path: Path::new("a:b") });
        assert_eq!(of("box:-"), Side::Container { name: "box", path: Path::new("-") });
        for wrong in ["", ":x", "box:"] {
            assert!(side(OsStr::new(wrong)).is_err(), "{wrong}");
        }
    }
}
