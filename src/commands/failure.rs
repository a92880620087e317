//! How a failure is said: in one line, from the outermost message to the cause, nothing twice.

use std::error::Error;
use std::io;
use std::path::Path;

use super::environment;

/// The message and its causes. Those of the library are whole sentences that end with their cause, contexts given in
/// this row are not; so a cause is added only when the line does not say it already.
pub(super) fn line(error: &(dyn Error + 'static)) -> String {
    let line = causes(error);
    let advice = environment::root().ok().and_then(|root| advice(error, &line, &root));
    advice.map_or_else(|| line.clone(), |advice| format!("{line} ({advice})"))
}

/// What to do where the store itself is what fails.
fn advice(error: &(dyn Error + 'static), line: &str, root: &Path) -> Option<&'static str> {
    let root = root.to_str().filter(|root| line.contains(root))?;
    let mut cause = error;
    while !cause.is::<io::Error>() {
        cause = cause.source()?;
    }
    match cause.downcast_ref::<io::Error>()?.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Some(
            "make room, as `layerfs prune` and `layerfs prune --containers` do, or set LAYERFS_ROOT to a directory on \
             another disk",
        ),
        io::ErrorKind::ReadOnlyFilesystem => Some("set LAYERFS_ROOT to a directory that can be written to"),
        // Below it files may belong to the users of containers, and that is another matter.
        io::ErrorKind::PermissionDenied if !line.contains(&format!("{root}/")) => {
            Some("set LAYERFS_ROOT to a directory of your own")
        }
        _ => None,
    }
}

fn causes(error: &(dyn Error + 'static)) -> String {
    let mut line = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let text = error.to_string();
        if !line.ends_with(&text) {
            line.push_str(": ");
            line.push_str(&text);
        }
        cause = error.source();
    }
    line
}

#[cfg(test)]
mod tests {
    use anyhow::Context as _;

    use super::*;
    use crate::index::IndexError;
    use crate::mount::MountError;

    fn library() -> MountError {
        let source = io::Error::other("disk on fire");
        let index = IndexError::Io { path: "blob".into(), source };
        MountError::Index { layer: 2, source: Box::new(index) }
    }

    #[test]
    fn nothing_is_said_twice() {
        assert_eq!(line(&library()), "layer 2: blob: disk on fire");
    }

    #[test]
    fn what_to_do_when_the_store_fails() {
        let failed = |code, path: &str| {
            let error = anyhow::Error::from(io::Error::from_raw_os_error(code))
                .context(format!("cannot write {path}"));
            advice(error.as_ref(), &causes(error.as_ref()), Path::new("/store")).unwrap_or_default()
        };
        let (full, read_only, denied) = (28, 30, 13);
        assert!(failed(full, "/store/containers/x").contains("layerfs prune"));
        assert!(failed(read_only, "/store/names").contains("LAYERFS_ROOT"));
        assert!(failed(denied, "/store").contains("of your own"));
        for (code, path) in [(denied, "/store/containers/x/upper"), (full, "/dev/full"), (2, "/store")] {
            assert_eq!(failed(code, path), "", "{path}");
        }
    }

    #[test]
    fn contexts_come_with_their_cause() {
        let error = Err::<(), _>(library()).context("demo").unwrap_err();
        assert_eq!(line(error.as_ref()), "demo: layer 2: blob: disk on fire");
        let error = anyhow::anyhow!("inner").context("middle").context("outer");
        assert_eq!(line(error.as_ref()), "outer: middle: inner");
    }
}
