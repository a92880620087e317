//! How a layer says that something below is gone (image-spec layer.md, "Whiteouts"; aufs). The one place that spells it.

use super::name::{FileName, Name, NameError};

/// What every whiteout's name starts with.
const PREFIX: &[u8] = b".wh.";
/// Aufs' own bookkeeping starts like this; the opaque marker is one of these names.
const META_PREFIX: &[u8] = b".wh..wh.";
/// Hides everything that lower layers have in its directory.
const OPAQUE: &[u8] = b".wh..wh..opq";

/// What a name in a layer means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Meaning<'a> {
    /// An ordinary object.
    Object(Name<'a>),
    /// Hides this name of the layers below.
    Whiteout(Name<'a>),
    /// Hides everything the layers below have in this directory.
    Opaque,
    /// Bookkeeping of aufs (`.wh..wh.plnk` and others): neither it nor anything in it is shown.
    AufsMeta,
}

/// Says what `name` means, before anyone looks at its type: a whiteout may be a file, a hard link, anything.
///
/// # Errors
/// [`NameError`] for bytes that are no name, and for a whiteout of nothing (`.wh.`, `.wh..`, `.wh...`).
pub fn meaning(name: &[u8]) -> Result<Meaning<'_>, NameError> {
    if name == OPAQUE {
        return Ok(Meaning::Opaque);
    }
    if name.starts_with(META_PREFIX) || name == b".wh.__dir_opaque" {
        return Ok(Meaning::AufsMeta);
    }
    match name.strip_prefix(PREFIX) {
        Some(hidden) => Name::new(hidden).map(Meaning::Whiteout),
        None => Name::new(name).map(Meaning::Object),
    }
}

/// The name of the whiteout that hides `name`.
///
/// # Errors
/// [`NameError::TooLong`] when four more bytes do not fit.
pub fn hiding(name: Name<'_>) -> Result<FileName, NameError> {
    let bytes = [PREFIX, name.as_bytes()].concat();
    Name::new(&bytes).map(Name::to_owned)
}

/// The marker that makes its directory opaque.
///
/// # Errors
/// None in practice; the type says so because names are only made by checking.
pub fn opaque_marker() -> Result<FileName, NameError> {
    Name::new(OPAQUE).map(Name::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn meanings() {
        let name = |bytes| Name::new(bytes).unwrap();
        assert_eq!(meaning(b"a"), Ok(Meaning::Object(name(b"a"))));
        assert_eq!(meaning(b".who"), Ok(Meaning::Object(name(b".who"))));
        assert_eq!(meaning(b".wh.a"), Ok(Meaning::Whiteout(name(b"a"))));
        assert_eq!(meaning(b".wh..wh..opq"), Ok(Meaning::Opaque));
        assert_eq!(meaning(b".wh..wh.plnk"), Ok(Meaning::AufsMeta));
        assert_eq!(meaning(b".wh."), Err(NameError::Invalid));
        assert_eq!(meaning(b".wh.."), Err(NameError::Invalid));
        assert_eq!(meaning(b".wh..."), Err(NameError::Invalid));
        assert_eq!(hiding(name(b"a")).unwrap().as_bytes(), b".wh.a");
    }
}
