//! What is mounted where, as this process sees it (proc_pid_mountinfo(5)).

use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::Path;

/// The type of the filesystem mounted on exactly this path (absolute, without symlinks), the topmost if there are
/// several; `None` when it is no mount point.
///
/// # Errors
/// When /proc cannot be read.
pub fn filesystem_at(path: &Path) -> io::Result<Option<String>> {
    Ok(find(&std::fs::read("/proc/self/mountinfo")?, path))
}

fn find(table: &[u8], path: &Path) -> Option<String> {
    let mut found = None;
    for line in table.split(|byte| *byte == b'\n') {
        let fields: Vec<&[u8]> = line.split(|byte| *byte == b' ').collect();
        let Some(separator) = fields.iter().position(|field| *field == b"-") else { continue };
        let (Some(mount_point), Some(kind)) = (fields.get(4), fields.get(separator + 1)) else { continue };
        if unescape(mount_point).as_bytes() == path.as_os_str().as_bytes() {
            found = Some(String::from_utf8_lossy(kind).into_owned());
        }
    }
    found
}

/// Space, tab, newline and backslash are written as three octal digits.
fn unescape(field: &[u8]) -> OsString {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((first, after)) = rest.split_first() {
        let digits = after.get(..3).and_then(|digits| std::str::from_utf8(digits).ok());
        match (first, digits.and_then(|digits| u8::from_str_radix(digits, 8).ok())) {
            (b'\\', Some(byte)) => {
                bytes.push(byte);
                rest = &after[3..];
            }
            _ => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    OsString::from_vec(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_topmost_counts() {
        let table = b"22 1 0:20 / / rw - ext4 /dev/sda rw\n\
            30 22 0:40 / /mnt/a\\040b rw,nosuid shared:5 - tmpfs tmpfs rw\n\
            31 22 0:41 / /mnt/a\\040b rw - fuse.layerfs image rw\n";
        assert_eq!(find(table, Path::new("/mnt/a b")), Some("fuse.layerfs".to_owned()));
        assert_eq!(find(table, Path::new("/")), Some("ext4".to_owned()));
        assert_eq!(find(table, Path::new("/mnt")), None);
    }
}
