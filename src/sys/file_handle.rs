//! What identifies an object within its filesystem for good: inode number and generation, name_to_handle_at(2).

use std::io;
use std::os::fd::{AsFd, AsRawFd as _};

/// The longest handle of any filesystem: `MAX_HANDLE_SZ` (linux/exportfs.h).
const HANDLE_BYTES_MAX: libc::c_uint = 128;

/// `struct file_handle` with room for any handle.
#[repr(C)]
struct Handle {
    handle_bytes: libc::c_uint,
    handle_type: libc::c_int,
    bytes: [u8; HANDLE_BYTES_MAX as usize],
}

const _: () = assert!(std::mem::offset_of!(Handle, bytes) == 8);

/// The handle of what a descriptor (`O_PATH` is enough) holds; `None` where the filesystem has none.
///
/// # Errors
/// What name_to_handle_at(2) says.
pub fn file_handle(file: impl AsFd) -> io::Result<Option<Vec<u8>>> {
    let mut handle =
        Handle { handle_bytes: HANDLE_BYTES_MAX, handle_type: 0, bytes: [0; HANDLE_BYTES_MAX as usize] };
    let mut mount_id: libc::c_int = 0;
    // SAFETY: `handle` has `handle_bytes` bytes after its head, and all pointers live until the call returns.
    let result = unsafe {
        libc::syscall(
            libc::SYS_name_to_handle_at,
            file.as_fd().as_raw_fd(),
            c"".as_ptr(),
            std::ptr::from_mut(&mut handle),
            std::ptr::from_mut(&mut mount_id),
            libc::AT_EMPTY_PATH,
        )
    };
    if result != 0 {
        let error = io::Error::last_os_error();
        return if error.raw_os_error() == Some(libc::EOPNOTSUPP) { Ok(None) } else { Err(error) };
    }
    let length = usize::try_from(handle.handle_bytes).unwrap_or(0);
    Ok(handle.bytes.get(..length).map(<[u8]>::to_vec))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_have_one_handle_and_files_their_own() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name| dir.path().join(name);
        std::fs::write(path("a"), "").unwrap();
        std::fs::write(path("c"), "").unwrap();
        std::fs::hard_link(path("a"), path("b")).unwrap();
        let handle = |name| file_handle(std::fs::File::open(path(name)).unwrap()).unwrap();
        assert_eq!(handle("a"), handle("b"));
        assert!(handle("a").is_none() || handle("a") != handle("c"));
    }
}
