//! Capability sets by name.

use rustix::thread::CapabilitySet;
use serde::{Serialize, Serializer};

/// A set of capabilities.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capabilities(CapabilitySet);

/// Every capability of linux/capability.h, in the order of its number.
const NAMES: [&str; 41] = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_DAC_READ_SEARCH",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETPCAP",
    "CAP_LINUX_IMMUTABLE",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_BROADCAST",
    "CAP_NET_ADMIN",
    "CAP_NET_RAW",
    "CAP_IPC_LOCK",
    "CAP_IPC_OWNER",
    "CAP_SYS_MODULE",
    "CAP_SYS_RAWIO",
    "CAP_SYS_CHROOT",
    "CAP_SYS_PTRACE",
    "CAP_SYS_PACCT",
    "CAP_SYS_ADMIN",
    "CAP_SYS_BOOT",
    "CAP_SYS_NICE",
    "CAP_SYS_RESOURCE",
    "CAP_SYS_TIME",
    "CAP_SYS_TTY_CONFIG",
    "CAP_MKNOD",
    "CAP_LEASE",
    "CAP_AUDIT_WRITE",
    "CAP_AUDIT_CONTROL",
    "CAP_SETFCAP",
    "CAP_MAC_OVERRIDE",
    "CAP_MAC_ADMIN",
    "CAP_SYSLOG",
    "CAP_WAKE_ALARM",
    "CAP_BLOCK_SUSPEND",
    "CAP_AUDIT_READ",
    "CAP_PERFMON",
    "CAP_BPF",
    "CAP_CHECKPOINT_RESTORE",
];

impl Capabilities {
    /// The eleven that podman leaves to root of a container.
    pub const DEFAULT: Self = Self(
        CapabilitySet::CHOWN
            .union(CapabilitySet::DAC_OVERRIDE)
            .union(CapabilitySet::FOWNER)
            .union(CapabilitySet::FSETID)
            .union(CapabilitySet::KILL)
            .union(CapabilitySet::NET_BIND_SERVICE)
            .union(CapabilitySet::SETFCAP)
            .union(CapabilitySet::SETGID)
            .union(CapabilitySet::SETPCAP)
            .union(CapabilitySet::SETUID)
            .union(CapabilitySet::SYS_CHROOT),
    );

    /// The capability of that name.
    #[must_use]
    pub fn by_name(name: &str) -> Option<Self> {
        let number = NAMES.iter().position(|known| *known == name)?;
        Some(Self(CapabilitySet::from_bits_retain(1 << number)))
    }

    /// Whether all of `other` are in it.
    #[must_use]
    pub fn contains(self, other: Self) -> bool {
        self.0.contains(other.0)
    }

    /// The set as the kernel takes it.
    #[must_use]
    pub fn bits(self) -> CapabilitySet {
        self.0
    }

    /// Their names.
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        NAMES
            .iter()
            .enumerate()
            .filter(move |(number, _)| self.0.bits() >> number & 1 == 1)
            .map(|(_, name)| *name)
    }
}

impl Serialize for Capabilities {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.names())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_is_podmans() {
        assert_eq!(Capabilities::DEFAULT.bits().bits(), 0x8004_05fb);
        assert_eq!(Capabilities::DEFAULT.names().count(), 11);
    }

    #[test]
    fn names_stand_at_their_numbers() {
        let of = |name| Capabilities::by_name(name).unwrap().bits();
        assert_eq!(of("CAP_SYS_ADMIN"), CapabilitySet::SYS_ADMIN);
        assert_eq!(of("CAP_CHECKPOINT_RESTORE"), CapabilitySet::CHECKPOINT_RESTORE);
        assert_eq!(Capabilities::by_name("CAP_NONE"), None);
    }
}
