//! `mount.layerfs`: what mount(8) and fstab(5) call for the type `layerfs`. It translates their grammar into the
//! arguments of `layerfs mount`; all else is that command's.

mod options;
mod translate;

use std::ffi::OsString;
use std::io;
use std::process::ExitCode;

use translate::{Request, translate};

/// What mount(8) calls an incorrect invocation.
const USAGE: u8 = 1;
/// What mount(8) calls a failed mount.
const MOUNT_FAILURE: u8 = 32;

const HELP: &str = "\
Usage: mount.layerfs IMAGE DIR [-sfnv] [-t TYPE] [-o OPTIONS]
       mount -t layerfs IMAGE DIR [-o OPTIONS]
       fstab: IMAGE DIR layerfs ro,nofail 0 0
       mount -t layerfs overlay DIR -o lowerdir=A:B,upperdir=U,workdir=W

Mounts a container image. IMAGE is what `layerfs mount --help` says; `none` with the option container=.

With lowerdir= everything is as `layerfs -o lowerdir=A DIR --help` says, and unknown options are only warned about.

Options of layerfs:
  container=ID          mount this container again, with its changes
  upper=DIR             keep changes in DIR/upper and DIR/work
  owner=caller|image    whose the files are
  rm                    delete all changes on unmount
  allow_other           for other users too, when an ordinary user mounts

A value with a comma is written as upper=\"DIR\". Options that belong to mount(8), fstab(5) and systemd are accepted.

  -f   do everything but mount        -s   tolerate unknown options
  -n   ignored                        -v   say what is done
  -h, --help                          -V, --version

Exit status: 0 mounted, 1 wrong usage, 32 the mount failed.";

fn main() -> ExitCode {
    let request = match translate(std::env::args_os().skip(1)) {
        Ok(request) => request,
        Err(error) => {
            say(io::stderr(), &format!("mount.layerfs: {error}\nTry mount.layerfs --help"));
            return ExitCode::from(USAGE);
        }
    };
    match request {
        Request::Help => say(io::stdout(), HELP),
        Request::Version => {
            say(io::stdout(), concat!("mount.layerfs ", env!("CARGO_PKG_VERSION")));
        }
        Request::Mount { arguments, fake, verbose } => {
            if verbose {
                say(io::stderr(), &format!("mount.layerfs: {}", shown(&arguments)));
            }
            if !fake && layerfs::commands::main(arguments) != ExitCode::SUCCESS {
                return ExitCode::from(MOUNT_FAILURE);
            }
        }
    }
    ExitCode::SUCCESS
}

fn say(mut to: impl io::Write, text: &str) {
    // Nothing can be done when nobody reads it.
    writeln!(to, "{text}").ok();
}

fn shown(arguments: &[OsString]) -> String {
    arguments.iter().map(|argument| argument.to_string_lossy()).collect::<Vec<_>>().join(" ")
}
