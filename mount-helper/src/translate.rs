//! From the arguments of a mount helper (mount(8), "External helpers") to those of `layerfs mount`; with `lowerdir=`, to
//! those that container engines give `layerfs`.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::iter;
use std::os::unix::ffi::OsStrExt as _;

use crate::options::{Options, names_layers};

/// What was asked for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Request {
    /// Print the help.
    Help,
    /// Print the version.
    Version,
    /// Mount.
    Mount {
        /// `layerfs mount ...`, or `layerfs -o ...`
        arguments: Vec<OsString>,
        /// Do not really.
        fake: bool,
        /// Say what is done.
        verbose: bool,
    },
}

/// Why a call makes no sense.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum UsageError {
    /// Not both IMAGE and DIR, or more.
    Operands(usize),
    /// A letter that means nothing.
    Letter(char),
    /// `--something`
    Long(String),
    /// A letter that needs a value.
    NoLetterValue(char),
    /// An option of `-o`.
    Unknown(String),
    /// An option of `-o` that needs a value.
    NoValue(String),
    /// `owner=`
    Owner(String),
    /// `-o remount`
    Remount,
    /// `-N`
    Namespace(String),
    /// Two that exclude each other.
    Both(&'static str, &'static str),
}

impl fmt::Display for UsageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Operands(count) => write!(f, "IMAGE and DIR are needed, {count} given"),
            Self::Letter(letter) => write!(f, "unknown option -{letter}"),
            Self::Long(text) => write!(f, "unknown option {text}"),
            Self::NoLetterValue(letter) => write!(f, "-{letter} needs a value"),
            Self::Unknown(option) => write!(f, "-o {option}: unknown mount option"),
            Self::NoValue(option) => write!(f, "-o {option}: needs a value: {option}=..."),
            Self::Owner(value) => write!(f, "-o owner={value}: must be caller or image"),
            Self::Remount => f.write_str("-o remount: not possible: unmount it and mount it again"),
            Self::Namespace(namespace) => {
                write!(f, "-N {namespace}: not possible: use nsenter --mount={namespace} mount ...")
            }
            Self::Both(one, other) => write!(f, "-o {one} and {other} exclude each other"),
        }
    }
}

/// What stands for no image: with `container=` there is nothing to say.
const NO_IMAGE: &str = "none";

/// The call, without the program's own name.
#[derive(Debug, Default)]
struct Call {
    operands: Vec<OsString>,
    lists: Vec<OsString>,
    fake: bool,
    sloppy: bool,
    verbose: bool,
    answer: Option<Request>,
}

/// Translates the arguments of the helper, its own name left out.
pub(crate) fn translate(arguments: impl IntoIterator<Item = OsString>) -> Result<Request, UsageError> {
    let call = Call::parse(arguments)?;
    if let Some(answer) = call.answer {
        return Ok(answer);
    }
    let [image, dir] = call.operands.as_slice() else {
        return Err(UsageError::Operands(call.operands.len()));
    };
    let (fake, verbose) = (call.fake, call.verbose);
    if call.lists.iter().any(|list| names_layers(list)) {
        let lists = call.lists.iter().flat_map(|list| ["-o".into(), list.clone()]);
        let operands = ["--".into(), image.clone(), dir.clone()];
        let arguments = iter::once("layerfs".into()).chain(lists).chain(operands).collect();
        return Ok(Request::Mount { arguments, fake, verbose });
    }
    // After all else is read: -s may come last.
    let mut options = Options::default();
    for list in &call.lists {
        options.add(list, call.sloppy)?;
    }
    for (given, name) in [(options.container.is_some(), "container="), (options.remove, "rm")] {
        if given && options.upper.is_some() {
            return Err(UsageError::Both("upper=", name));
        }
    }
    let mut arguments: Vec<OsString> = ["layerfs", "mount", "--quiet"].map(OsString::from).into();
    let values = [
        ("--container", options.container.as_ref()),
        ("--upper", options.upper.as_ref()),
        ("--owner", options.owner.as_ref()),
    ];
    for (option, value) in values {
        if let Some(value) = value {
            // In one word, so that a value cannot be taken for an option.
            let mut word = OsString::from(option);
            word.push("=");
            word.push(value);
            arguments.push(word);
        }
    }
    if options.remove {
        arguments.push("--rm".into());
    }
    if !options.flags.is_empty() {
        arguments.extend(["-o".into(), options.flags.join(",").into()]);
    }
    arguments.push("--".into());
    if options.container.is_none() || image != NO_IMAGE {
        arguments.push(image.clone());
    }
    arguments.push(dir.clone());
    Ok(Request::Mount { arguments, fake, verbose })
}

impl Call {
    fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Self, UsageError> {
        let mut call = Self::default();
        let mut arguments = arguments.into_iter();
        while let Some(argument) = arguments.next() {
            match argument.as_bytes() {
                b"--" => {
                    call.operands.extend(arguments);
                    break;
                }
                b"--help" => call.answer = Some(Request::Help),
                b"--version" => call.answer = Some(Request::Version),
                [b'-', b'-', ..] => return Err(UsageError::Long(argument.to_string_lossy().into_owned())),
                [b'-', letters @ ..] if !letters.is_empty() => call.letters(letters, &mut arguments)?,
                _ => call.operands.push(argument),
            }
        }
        Ok(call)
    }

    /// Letters in one word; the value of one that takes one is the rest of the word, or the next.
    fn letters(
        &mut self,
        letters: &[u8],
        following: &mut impl Iterator<Item = OsString>,
    ) -> Result<(), UsageError> {
        for (at, letter) in letters.iter().enumerate() {
            match letter {
                b'f' => self.fake = true,
                b's' => self.sloppy = true,
                b'v' => self.verbose = true,
                b'n' => {}
                b'h' => self.answer = Some(Request::Help),
                b'V' => self.answer = Some(Request::Version),
                b'o' | b't' | b'N' => {
                    let rest = OsStr::from_bytes(&letters[at + 1..]);
                    let value = if rest.is_empty() { following.next() } else { Some(rest.to_owned()) };
                    let value = value.ok_or(UsageError::NoLetterValue(char::from(*letter)))?;
                    match letter {
                        b'o' => self.lists.push(value),
                        b'N' => return Err(UsageError::Namespace(value.to_string_lossy().into_owned())),
                        // TYPE.SUBTYPE, which can only be us.
                        _ => {}
                    }
                    return Ok(());
                }
                _ => return Err(UsageError::Letter(char::from(*letter))),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    fn run(line: &[&str]) -> Result<Request, UsageError> {
        translate(line.iter().map(OsString::from))
    }

    fn mounts(line: &[&str], expected: &[&str]) {
        let arguments = match run(line).unwrap() {
            Request::Mount { arguments, .. } => arguments,
            other => panic!("{line:?}: {other:?}"),
        };
        assert_eq!(arguments[..3], ["layerfs", "mount", "--quiet"], "{line:?}");
        assert_eq!(arguments[3..], *expected, "{line:?}");
    }

    #[test]
    fn as_mount_calls_it() {
        mounts(&["/i/oci", "/mnt", "-o", "ro"], &["-o", "ro", "--", "/i/oci", "/mnt"]);
        mounts(&["/i/oci", "/mnt", "-o", "rw"], &["-o", "rw", "--", "/i/oci", "/mnt"]);
        mounts(&["-t", "layerfs.x", "-oro", "-o", "noexec", "i", "d"], &["-o", "ro,noexec", "--", "i", "d"]);
        mounts(&["i", "d", "-snv", "-osuid"], &["-o", "suid", "--", "i", "d"]);
    }

    #[test]
    fn names_with_colons_and_dashes_pass() {
        mounts(&["oci:/i/oci:v1.2", "/mnt"], &["--", "oci:/i/oci:v1.2", "/mnt"]);
        mounts(&["host:5000/a/b:c@sha256:00", "/mnt"], &["--", "host:5000/a/b:c@sha256:00", "/mnt"]);
        mounts(&["--", "-image", "-dir"], &["--", "-image", "-dir"]);
    }

    #[test]
    fn options_of_layerfs() {
        mounts(&["i", "d", "-o", "owner=caller,upper=/u"], &["--upper=/u", "--owner=caller", "--", "i", "d"]);
        mounts(&["i", "d", "-o", "container=-x,rm"], &["--container=-x", "--rm", "--", "i", "d"]);
        mounts(&["none", "d", "-o", "container=x"], &["--container=x", "--", "d"]);
        mounts(&["none", "d"], &["--", "none", "d"]);
    }

    #[test]
    fn overlays_go_to_the_grammar_of_engines() {
        let line = ["-t", "layerfs", "-orw", "overlay", "/mnt", "-o", "lowerdir=/a:/b,frob", "-n"];
        let Request::Mount { arguments, .. } = run(&line).unwrap() else { panic!() };
        assert_eq!(arguments, ["layerfs", "-o", "rw", "-o", "lowerdir=/a:/b,frob", "--", "overlay", "/mnt"]);
        let line = ["overlay", "/mnt", "-fv", "-o", "ro,lowerdir=/a"];
        assert!(matches!(run(&line), Ok(Request::Mount { fake: true, verbose: true, .. })));
    }

    #[test]
    fn letters_mean_what_mount_says() {
        let Request::Mount { fake, verbose, .. } = run(&["i", "d", "-fv"]).unwrap() else { panic!() };
        assert!(fake && verbose);
        assert_eq!(run(&["-h"]), Ok(Request::Help));
        assert_eq!(run(&["--version"]), Ok(Request::Version));
        mounts(&["i", "d", "-o", "frob,ro", "-s"], &["-o", "ro", "--", "i", "d"]);
    }

    #[test]
    fn nonsense_is_refused() {
        assert_eq!(run(&[]), Err(UsageError::Operands(0)));
        assert_eq!(run(&["i"]), Err(UsageError::Operands(1)));
        assert_eq!(run(&["i", "d", "e"]), Err(UsageError::Operands(3)));
        assert_eq!(run(&["i", "d", "-x"]), Err(UsageError::Letter('x')));
        assert_eq!(run(&["i", "d", "--frob"]), Err(UsageError::Long("--frob".to_owned())));
        assert_eq!(run(&["i", "d", "-o"]), Err(UsageError::NoLetterValue('o')));
        assert_eq!(run(&["i", "d", "-N", "7"]), Err(UsageError::Namespace("7".to_owned())));
        assert_eq!(run(&["i", "d", "-f", "-o", "frob"]), Err(UsageError::Unknown("frob".to_owned())));
        assert_eq!(run(&["i", "d", "-o", "upper=/u,rm"]), Err(UsageError::Both("upper=", "rm")));
    }

    /// What is produced here must be what the command takes.
    #[test]
    fn layerfs_takes_it() {
        let line = ["i:t", "/mnt", "-o", "ro,dev,suid,exec,noatime,allow_other,owner=image,rm,users,nofail"];
        let Request::Mount { arguments, .. } = run(&line).unwrap() else { panic!() };
        let cli = layerfs::commands::args::Cli::try_parse_from(arguments).unwrap();
        let layerfs::commands::args::Command::Mount(mount) = cli.command else { panic!() };
        assert_eq!((mount.image.as_deref(), mount.dir), (Some("i:t"), Some("/mnt".into())));
        assert!(mount.quiet && mount.rm);
    }
}
