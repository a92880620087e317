//! Where people and systems keep what they say about registries: the paths that podman, skopeo and docker know.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

/// Most bytes of one file that is read here: credentials, configuration, a certificate. The largest in use, bundles of
/// all certificate authorities, have a quarter of it.
pub(super) const FILE_BYTES_MAX: u64 = 1 << 20;

/// The directories and files of one user on one system.
#[derive(Clone, Debug)]
pub struct Places {
    /// `$REGISTRY_AUTH_FILE`.
    pub(super) auth_file: Option<PathBuf>,
    /// `$XDG_RUNTIME_DIR/containers/auth.json`, else `/run/containers/UID/auth.json`.
    pub(super) runtime_auth_file: PathBuf,
    /// Whether that is the user's own directory; `/run/containers` is root's as soon as root has used podman.
    pub(super) has_runtime_dir: bool,
    /// `$CONTAINERS_REGISTRIES_CONF`.
    pub(super) registries_conf: Option<PathBuf>,
    /// `$XDG_CONFIG_HOME`, else `~/.config`.
    pub(super) config_home: Option<PathBuf>,
    /// `~/.config`, also where `$XDG_CONFIG_HOME` says otherwise.
    pub(super) dot_config: Option<PathBuf>,
    /// `$DOCKER_CONFIG`, else `~/.docker`.
    pub(super) docker_config: Option<PathBuf>,
    /// `~/.dockercfg`.
    pub(super) dockercfg: Option<PathBuf>,
    /// `/etc`.
    pub(super) etc: PathBuf,
}

impl Places {
    /// `variable` says what a variable of the environment is; an empty one counts as missing. `home` is the user's home
    /// directory, as far as there is one.
    #[must_use]
    pub fn new(variable: impl Fn(&str) -> Option<OsString>, home: Option<&Path>, uid: u32) -> Self {
        let set = |name: &str| variable(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let dot_config = home.map(|home| home.join(".config"));
        let runtime = set("XDG_RUNTIME_DIR").map(|dir| dir.join("containers"));
        let has_runtime_dir = runtime.is_some();
        let runtime = runtime.unwrap_or_else(|| Path::new("/run/containers").join(uid.to_string()));
        Self {
            auth_file: set("REGISTRY_AUTH_FILE"),
            runtime_auth_file: runtime.join("auth.json"),
            has_runtime_dir,
            registries_conf: set("CONTAINERS_REGISTRIES_CONF"),
            // Relative ones are invalid and to be ignored (XDG Base Directory Specification, "Basics").
            config_home: set("XDG_CONFIG_HOME")
                .filter(|dir| dir.is_absolute())
                .or_else(|| dot_config.clone()),
            dot_config,
            docker_config: set("DOCKER_CONFIG").or_else(|| home.map(|home| home.join(".docker"))),
            dockercfg: home.map(|home| home.join(".dockercfg")),
            etc: PathBuf::from("/etc"),
        }
    }

    /// The same with another `/etc`: for systems that lie below a directory, and for tests.
    #[must_use]
    pub fn with_etc(self, etc: &Path) -> Self {
        Self { etc: etc.to_owned(), ..self }
    }
}

/// Reads a file as a whole; `None` when there is none. Pipes will do.
///
/// # Errors
/// What the system says; `FileTooLarge` beyond [`FILE_BYTES_MAX`].
pub(super) fn read(path: &Path) -> io::Result<Option<Vec<u8>>> {
    let file = match File::open(path) {
        Ok(file) => file,
        // A file in the way of a directory: then there is no such file either.
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Ok(None);
        }
        Err(error) => return Err(error),
    };
    read_open(&file).map(Some)
}

/// Reads an open file to its end, with the same limit.
pub(super) fn read_open(file: &File) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        let why = format!("larger than {FILE_BYTES_MAX} bytes");
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, why));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places(set: &[(&str, &str)], home: Option<&str>) -> Places {
        let value =
            |name: &str| set.iter().find(|(known, _)| *known == name).map(|(_, value)| OsString::from(value));
        Places::new(value, home.map(Path::new), 7)
    }

    #[test]
    fn as_the_environment_says() {
        let plain = places(&[("XDG_RUNTIME_DIR", ""), ("XDG_CONFIG_HOME", "relative")], Some("/h"));
        assert_eq!(plain.runtime_auth_file, Path::new("/run/containers/7/auth.json"));
        assert_eq!(plain.config_home.as_deref(), Some(Path::new("/h/.config")));
        assert_eq!(plain.docker_config.as_deref(), Some(Path::new("/h/.docker")));
        let all = [("XDG_RUNTIME_DIR", "/r"), ("XDG_CONFIG_HOME", "/c"), ("DOCKER_CONFIG", "/d")];
        let set = places(&all, None);
        assert_eq!(set.runtime_auth_file, Path::new("/r/containers/auth.json"));
        assert_eq!(set.config_home.as_deref(), Some(Path::new("/c")));
        assert_eq!(set.docker_config.as_deref(), Some(Path::new("/d")));
        assert_eq!((set.dot_config, set.dockercfg, set.auth_file), (None, None, None));
    }

    #[test]
    fn files_have_a_limit() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        assert_eq!(read(&path).unwrap(), None);
        File::create(&path).unwrap().set_len(FILE_BYTES_MAX).unwrap();
        assert_eq!(read(&path).unwrap().unwrap().len() as u64, FILE_BYTES_MAX);
        File::create(&path).unwrap().set_len(FILE_BYTES_MAX + 1).unwrap();
        assert_eq!(read(&path).unwrap_err().kind(), io::ErrorKind::FileTooLarge);
        assert_eq!(read(&path.join("below")).unwrap(), None);
    }
}
