//! Devices of the host that a container is shown.

use std::fs;
use std::io;
use std::os::unix::fs::FileTypeExt as _;
use std::path::{Path, PathBuf};

use crate::launcher::Device;

/// Directories of devices are not deep: `/dev/bus/usb/001/001`.
const DEPTH_MAX: u32 = 8;
/// Made for each container, or of the terminal that somebody sits at (podman's list).
const OWN: [&str; 11] =
    ["null", "zero", "full", "random", "urandom", "tty", "console", "ptmx", "pts", "shm", "mqueue"];

/// A device, or all that are below a directory, at another place.
///
/// # Errors
/// What the system says; `InvalidInput` when there is none.
pub fn devices_at(source: &Path, destination: &Path) -> io::Result<Vec<Device>> {
    let mut found = Vec::new();
    let source = source.canonicalize()?;
    collect(&source, DEPTH_MAX, &mut found)?;
    if found.is_empty() {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "neither a device nor a directory of devices",
        ));
    }
    let placed = |path: PathBuf| {
        let below = path.strip_prefix(&source).unwrap_or(Path::new(""));
        let destination =
            if below.as_os_str().is_empty() { destination.to_owned() } else { destination.join(below) };
        Device { source: path, destination }
    };
    Ok(found.into_iter().map(placed).collect())
}

/// All devices of the host but those that every container has and the virtual consoles.
pub(super) fn all_devices() -> io::Result<Vec<Device>> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/dev")? {
        let entry = entry?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        let console =
            name.strip_prefix("tty").is_some_and(|rest| rest.bytes().all(|byte| byte.is_ascii_digit()));
        if !console && !OWN.contains(&name.as_ref()) {
            collect(&entry.path(), DEPTH_MAX, &mut found)?;
        }
    }
    Ok(found.into_iter().map(|path| Device { source: path.clone(), destination: path }).collect())
}

/// Devices at a path and below. What goes away meanwhile, or may not be looked into, is passed over; links are not followed.
fn collect(path: &Path, depth: u32, found: &mut Vec<PathBuf>) -> io::Result<()> {
    let Ok(metadata) = fs::symlink_metadata(path) else { return Ok(()) };
    let kind = metadata.file_type();
    if kind.is_char_device() || kind.is_block_device() {
        found.push(path.to_owned());
    } else if kind.is_dir() && depth > 0 {
        let Ok(entries) = fs::read_dir(path) else { return Ok(()) };
        for entry in entries {
            collect(&entry?.path(), depth - 1, found)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_device_or_a_directory() {
        let one = devices_at(Path::new("/dev/null"), Path::new("/dev/nothing")).unwrap();
        assert_eq!(one, [Device { source: "/dev/null".into(), destination: "/dev/nothing".into() }]);
        assert_eq!(
            devices_at(Path::new("/etc"), Path::new("/x")).unwrap_err().kind(),
            io::ErrorKind::InvalidInput
        );
        let all = devices_at(Path::new("/dev"), Path::new("/d")).unwrap();
        assert!(all.iter().any(|device| device.destination == Path::new("/d/full")), "{all:?}");
    }

    #[test]
    fn consoles_and_what_containers_have_are_not_among_all() {
        let all = all_devices().unwrap();
        assert!(all.iter().all(|device| device.source != Path::new("/dev/null")), "{all:?}");
        assert!(all.iter().all(|device| !device.source.starts_with("/dev/pts")), "{all:?}");
    }
}
