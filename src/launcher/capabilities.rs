//! Capability sets by name.

use rustix::thread::CapabilitySet;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A set of capabilities. In documents it is a list of names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capabilities(CapabilitySet);

impl Default for Capabilities {
    fn default() -> Self {
        Self::NONE
    }
}

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
    /// Not one.
    pub const NONE: Self = Self(CapabilitySet::empty());
    /// Every one that there is.
    pub const ALL: Self = Self(CapabilitySet::from_bits_retain((1 << NAMES.len()) - 1));
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

    /// The capability of that name, as people write it: `CAP_` may be missing, and case does not matter. `ALL` is all.
    #[must_use]
    pub fn by_name(name: &str) -> Option<Self> {
        let name = name.to_ascii_uppercase();
        if name == "ALL" {
            return Some(Self::ALL);
        }
        let name = name.strip_prefix("CAP_").unwrap_or(&name);
        let number = NAMES.iter().position(|known| known.strip_prefix("CAP_") == Some(name))?;
        Some(Self(CapabilitySet::from_bits_retain(1 << number)))
    }

    /// And those of the other.
    #[must_use]
    pub fn with(self, other: Self) -> Self {
        Self(self.0.union(other.0))
    }

    /// But those of the other.
    #[must_use]
    pub fn without(self, other: Self) -> Self {
        Self(self.0.difference(other.0))
    }

    /// Those of a set of the kernel's.
    pub(super) fn of(bits: CapabilitySet) -> Self {
        Self(bits)
    }

    /// Those that are not among these.
    pub(super) fn beyond(self, these: CapabilitySet) -> Self {
        Self(self.0.difference(these))
    }

    /// What both have.
    #[must_use]
    pub fn intersection(self, other: Self) -> Self {
        Self(self.0.intersection(other.0))
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

impl<'de> Deserialize<'de> for Capabilities {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut set = Self::NONE;
        for name in Vec::<String>::deserialize(deserializer)? {
            let one = Self::by_name(&name);
            set = set.with(one.ok_or_else(|| D::Error::custom(format!("no capability {name:?}")))?);
        }
        Ok(set)
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
        assert_eq!(of("net_admin"), CapabilitySet::NET_ADMIN);
        assert_eq!(of("all").bits().count_ones(), 41);
        for wrong in ["CAP_NONE", "", "CAP_", "CAP_CAP_KILL"] {
            assert_eq!(Capabilities::by_name(wrong), None, "{wrong}");
        }
    }
}
