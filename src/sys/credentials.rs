//! What a process may do to files beyond being somebody: its groups and capabilities, as proc_pid_status(5) tells them.

use std::path::Path;
use std::{fs, io};

/// `CAP_FOWNER`: acts on files as their owner (capabilities(7)).
pub const FOWNER: u8 = 3;
/// `CAP_FSETID`: setuid and setgid bits stay when the file changes.
pub const FSETID: u8 = 4;
/// `CAP_SYS_ADMIN`: among much else, sees `trusted.` attributes.
pub const SYS_ADMIN: u8 = 21;

/// The link of `/proc/PID/ns/user` in the initial user namespace: its number is the same on every Linux.
const INITIAL_USER_NAMESPACE: &str = "user:[4026531837]";

/// Groups and capabilities of one thread.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Credentials {
    groups: Vec<u32>,
    /// Those that count here: of a thread in this process's user namespace, or in the initial one.
    effective: u64,
    initial: bool,
}

impl Credentials {
    /// Those of a thread that waits for an answer, so they do not change meanwhile.
    ///
    /// # Errors
    /// When the thread cannot be looked at: it ended, or is in a pid namespace that cannot be seen from here.
    pub fn of(thread: u32) -> io::Result<Self> {
        let dir = Path::new("/proc").join(thread.to_string());
        // Its name, which is in there too, may be any bytes.
        let status = fs::read(dir.join("status"))?;
        let (groups, effective) = parse(&String::from_utf8_lossy(&status))
            .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "/proc/PID/status cannot be read"))?;
        if effective == 0 {
            return Ok(Self { groups, effective, initial: false });
        }
        // Anybody has all capabilities in a user namespace of his own. Who may not look at the link does not count either.
        let namespace = fs::read_link(dir.join("ns/user")).ok();
        let initial = namespace.as_deref() == Some(Path::new(INITIAL_USER_NAMESPACE));
        let own = namespace.is_some() && namespace == fs::read_link("/proc/self/ns/user").ok();
        Ok(Self { groups, effective: if initial || own { effective } else { 0 }, initial })
    }

    /// Whether it is in a group by its supplementary ones.
    #[must_use]
    pub fn has_group(&self, gid: u32) -> bool {
        self.groups.contains(&gid)
    }

    /// Whether it has a capability in the user namespace of this process, or in the initial one.
    #[must_use]
    pub fn has(&self, capability: u8) -> bool {
        self.effective & (1 << capability) != 0
    }

    /// Whether it has a capability in the initial user namespace, where some must be had to count.
    #[must_use]
    pub fn has_everywhere(&self, capability: u8) -> bool {
        self.initial && self.has(capability)
    }
}

fn parse(status: &str) -> Option<(Vec<u32>, u64)> {
    let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name));
    let groups = field("Groups:")?.split_ascii_whitespace().map(str::parse).collect::<Result<_, _>>().ok()?;
    Some((groups, u64::from_str_radix(field("CapEff:")?.trim(), 16).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn status_is_read() {
        let status =
            "Name:\tx\nGid:\t5\t5\t5\t5\nGroups:\t5 27 1000 \nCapPrm:\t0\nCapEff:\t0000000000200018\n";
        let (groups, effective) = parse(status).unwrap();
        let credentials = Credentials { groups, effective, initial: false };
        assert!(credentials.has_group(27) && !credentials.has_group(2));
        assert!(credentials.has(FOWNER) && credentials.has(FSETID) && credentials.has(SYS_ADMIN));
        assert!(!credentials.has(2) && !credentials.has_everywhere(FSETID));
        assert_eq!(parse("Groups:\t\nCapEff:\t0\n"), Some((Vec::new(), 0)));
        assert_eq!(parse("Groups:\tx\nCapEff:\t0\n"), None);
        assert_eq!(parse(""), None);
    }

    #[test]
    fn of_this_very_process() {
        let credentials = Credentials::of(std::process::id()).unwrap();
        let root = rustix::process::geteuid().is_root();
        assert!(root || !credentials.has_everywhere(SYS_ADMIN));
        assert!(Credentials::of(0).is_err());
    }
}
