//! The grammar of mount programs: `layerfs -o OPTIONS DIR` as container engines call fuse-overlayfs, and
//! `layerfs SOURCE DIR -o OPTIONS` as mount.fuse3 and mount(8) do.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use super::overlay_options::{OverlayOptionError, OverlayOptions};

/// By this name the grammar is the only one: some engines look for no other.
const STANDS_FOR: &str = "fuse-overlayfs";

/// What was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum OverlayCall {
    /// Print the help.
    Help,
    /// Print the version.
    Version,
    /// Mount.
    Mount {
        /// What.
        options: Box<OverlayOptions>,
        /// What mount(8) is to show as the source.
        source: OsString,
        /// Where.
        dir: PathBuf,
        /// Stay in the foreground.
        foreground: bool,
    },
}

/// Why a call makes no sense.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum OverlayCallError {
    #[error(transparent)]
    Option(#[from] OverlayOptionError),
    #[error("-o: needs a value")]
    NoOptions,
    #[error("where? the last argument must be a directory")]
    NoDir,
    #[error("-o lowerdir= is needed")]
    NoLower,
    #[error("-o upperdir= needs workdir=, a directory on the same filesystem")]
    NoWork,
}

/// Whether arguments, the program's own name first, are in this grammar: it is called by the other name, or there is a
/// `-o` and the first argument is none of `commands`, which are asked for only then: to list them takes a millisecond.
pub(super) fn is_overlay_call(args: &[OsString], commands: impl FnOnce() -> Vec<String>) -> bool {
    let called = args.first().and_then(|path| Path::new(path).file_name());
    if called == Some(OsStr::new(STANDS_FOR)) {
        return true;
    }
    let Some((first, _)) = args.get(1..).and_then(<[OsString]>::split_first) else { return false };
    let has_options = args.iter().skip(1).any(|word| word.as_bytes().starts_with(b"-o"));
    has_options && !commands().iter().any(|command| first == command.as_str())
}

impl OverlayCall {
    /// Understands the arguments, the program's own name left out.
    ///
    /// # Errors
    /// [`OverlayCallError`]
    pub(super) fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Self, OverlayCallError> {
        let mut args = args.into_iter();
        let mut options = OverlayOptions::default();
        let mut operands = Vec::new();
        let mut foreground = false;
        while let Some(word) = args.next() {
            match word.as_bytes() {
                b"--" => operands.extend(args.by_ref()),
                b"-h" | b"--help" => return Ok(Self::Help),
                b"-V" | b"--version" => return Ok(Self::Version),
                b"-f" | b"--foreground" => foreground = true,
                b"-d" | b"--debug" => options.debug = true,
                // One thread only (libfuse).
                b"-s" => {}
                b"-o" => options.add(&args.next().ok_or(OverlayCallError::NoOptions)?)?,
                [b'-', b'o', list @ ..] => options.add(OsStr::from_bytes(list))?,
                [b'-', _, ..] => options.unknown.push(word.to_string_lossy().into_owned()),
                _ => operands.push(word),
            }
        }
        // The last one is where; what is before it has no meaning but to be shown.
        let dir = operands.pop().filter(|dir| !dir.is_empty()).ok_or(OverlayCallError::NoDir)?;
        if options.lowers.is_empty() {
            return Err(OverlayCallError::NoLower);
        }
        if options.upper.is_some() && options.work.is_none() {
            return Err(OverlayCallError::NoWork);
        }
        let source = operands.pop().unwrap_or_else(|| "layerfs".into());
        let foreground = foreground || options.debug;
        Ok(Self::Mount { options: Box::new(options), source, dir: dir.into(), foreground })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arguments(line: &[&str]) -> Vec<OsString> {
        line.iter().map(OsString::from).collect()
    }

    fn parse(line: &[&str]) -> Result<OverlayCall, OverlayCallError> {
        OverlayCall::parse(arguments(line))
    }

    fn mount(line: &[&str]) -> (OverlayOptions, String, String, bool) {
        match parse(line).unwrap() {
            OverlayCall::Mount { options, source, dir, foreground } => {
                let dir = dir.to_str().unwrap().to_owned();
                (*options, source.into_string().unwrap(), dir, foreground)
            }
            other => panic!("{line:?}: {other:?}"),
        }
    }

    #[test]
    fn which_calls_are_meant() {
        let is =
            |line: &[&str]| is_overlay_call(&arguments(line), || vec!["mount".to_owned(), "run".to_owned()]);
        assert!(is(&["layerfs", "-o", "lowerdir=/a", "/mnt"]));
        assert!(is(&["/usr/bin/layerfs", "-olowerdir=/a", "/mnt"]));
        assert!(is(&["layerfs", "overlay", "/mnt", "-o", "rw,lowerdir=/a"]));
        assert!(is(&["layerfs", "-f", "-o", "lowerdir=/a", "/mnt"]));
        assert!(is(&["/usr/bin/fuse-overlayfs", "--version"]));
        assert!(is(&["fuse-overlayfs", "mount", "/mnt"]));
        assert!(!is(&["layerfs", "mount", "-o", "ro", "image", "/mnt"]));
        assert!(!is(&["layerfs", "run", "image", "mount", "-o", "lowerdir=/a"]));
        assert!(!is(&["layerfs", "--version"]));
        assert!(!is(&["layerfs", "frob"]));
        assert!(!is(&["layerfs"]));
        assert!(!is(&[]));
    }

    #[test]
    fn as_engines_call_it() {
        let line = ["-o", "lowerdir=/l,upperdir=/u,workdir=/w,volatile", "/run/merged"];
        let (options, source, dir, foreground) = mount(&line);
        assert_eq!((source.as_str(), dir.as_str(), foreground), ("layerfs", "/run/merged", false));
        assert!(options.volatile);
    }

    #[test]
    fn as_mount_fuse3_calls_it() {
        let line = ["overlay", "/mnt", "-o", "workdir=/w,upperdir=/u,lowerdir=/l,writeback=0,dev,suid"];
        let (options, source, dir, _) = mount(&line);
        assert_eq!((source.as_str(), dir.as_str()), ("overlay", "/mnt"));
        assert_eq!(options.lowers, ["/l"]);
        let (options, source, dir, _) = mount(&["-oro", "X", "X", "-olowerdir=/l", "/mnt"]);
        assert_eq!((source.as_str(), dir.as_str()), ("X", "/mnt"));
        assert_eq!(options.lowers, ["/l"]);
    }

    #[test]
    fn the_rest() {
        assert!(mount(&["-f", "-olowerdir=/l", "/mnt"]).3);
        assert!(mount(&["-d", "-olowerdir=/l", "/mnt"]).3);
        assert!(mount(&["-olowerdir=/l,debug", "/mnt"]).3);
        assert_eq!(mount(&["-x", "--frob", "-olowerdir=/l", "/mnt"]).0.unknown, ["-x", "--frob"]);
        assert_eq!(mount(&["-olowerdir=/l", "--", "-mnt"]).2, "-mnt");
        assert_eq!(parse(&["-V"]), Ok(OverlayCall::Version));
        assert_eq!(parse(&["--help", "-o"]), Ok(OverlayCall::Help));
    }

    #[test]
    fn nonsense_is_refused() {
        assert_eq!(parse(&["-o", "lowerdir=/l"]), Err(OverlayCallError::NoDir));
        assert_eq!(parse(&["-o", "lowerdir=/l", ""]), Err(OverlayCallError::NoDir));
        assert_eq!(parse(&["/mnt", "-o"]), Err(OverlayCallError::NoOptions));
        assert_eq!(parse(&["-o", "ro", "/mnt"]), Err(OverlayCallError::NoLower));
        assert_eq!(parse(&["-o", "lowerdir=/l,upperdir=/u", "/mnt"]), Err(OverlayCallError::NoWork));
        assert!(matches!(parse(&["-o", "lowerdir=", "/mnt"]), Err(OverlayCallError::Option(_))));
    }
}
