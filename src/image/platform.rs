//! What an image is made to run on, as `--platform` says it: `OS/ARCH[/VARIANT]` in Go's words, with the aliases that
//! containerd and docker know.

use std::cmp::Reverse;
use std::fmt;
use std::str::FromStr;

use super::manifest::host_architecture;
use crate::model::ImageConfig;
use crate::store::Platform;

/// The platform that is looked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TargetPlatform {
    os: String,
    architecture: String,
    variant: Option<String>,
}

/// A text that is no platform.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?}: a platform is OS/ARCH or OS/ARCH/VARIANT, such as linux/arm64 or linux/arm/v7")]
pub struct PlatformError(String);

impl TargetPlatform {
    /// This machine.
    #[must_use]
    pub fn host() -> Self {
        Self { os: "linux".to_owned(), architecture: host_architecture().to_owned(), variant: None }
    }

    /// This machine with all that decides which of several images is chosen for it.
    pub(super) fn host_in_full() -> String {
        let host = Self::host();
        let level = newest(&host.architecture).map(|(major, minor)| format!("/{major}.{minor}"));
        format!("{host}{}", level.unwrap_or_default())
    }

    fn new(os: &str, architecture: &str, variant: Option<&str>) -> Self {
        // Configs of old builders say nothing of the system.
        let os = if os.is_empty() { "linux".to_owned() } else { os.to_ascii_lowercase() };
        let architecture = architecture.to_ascii_lowercase();
        let variant = variant.filter(|variant| !variant.is_empty()).map(str::to_ascii_lowercase);
        let (architecture, variant) = match (architecture.as_str(), variant.as_deref()) {
            ("amd64" | "x86_64" | "x86-64", Some("v1" | "1")) => ("amd64", None),
            ("amd64" | "x86_64" | "x86-64", Some(number @ ("2" | "3" | "4"))) => {
                ("amd64", Some(format!("v{number}")))
            }
            ("x86_64" | "x86-64", _) => ("amd64", variant),
            ("i386" | "x86", _) => ("386", None),
            ("aarch64", None) | ("arm64" | "aarch64", Some("8" | "v8" | "v8.0")) => ("arm64", None),
            ("arm64" | "aarch64", Some("9" | "v9.0")) => ("arm64", Some("v9".to_owned())),
            ("aarch64", _) => ("arm64", variant),
            ("armhf", _) => ("arm", Some("v7".to_owned())),
            ("armel", _) => ("arm", Some("v6".to_owned())),
            ("arm", Some(number @ ("5" | "6" | "7" | "8"))) => ("arm", Some(format!("v{number}"))),
            (other, _) => (other, variant),
        };
        Self { os, architecture: architecture.to_owned(), variant }
    }

    /// What a descriptor says of its image.
    pub(super) fn of(platform: &Platform) -> Self {
        let variant = platform.other.get("variant").and_then(serde_json::Value::as_str);
        Self::new(&platform.os, &platform.architecture, variant)
    }

    /// What a config says of its image.
    pub(super) fn of_config(config: &ImageConfig) -> Self {
        let variant = config.other.get("variant").and_then(serde_json::Value::as_str);
        Self::new(&config.os, &config.architecture, variant)
    }

    /// Whether an image that says `other` of itself is one for this platform.
    pub(super) fn fits(&self, other: &Self) -> bool {
        self.rank(other).is_some()
    }

    /// The one that fits best; of equals the first.
    pub(super) fn choose<T>(&self, all: impl Iterator<Item = (T, Self)> + Clone) -> Option<T> {
        let ranked = all.filter_map(|(found, one)| Some((self.rank(&one)?, found)));
        ranked.min_by_key(|(rank, _)| *rank).map(|(_, found)| found)
    }

    /// How well an image for `other` runs here, if it does; less is better. As `Only` of containerd/platforms has it: a
    /// processor runs what is made for its variant and for earlier ones, and `arm` is `arm/v7`. Without a variant asked for,
    /// an image without is preferred, then what this machine runs. Unlike there an `arm` image that names no variant is
    /// taken for any, last of all, as skopeo does; and neither 386 for amd64 nor arm for arm64, whose programs the
    /// system call filter does not let run.
    fn rank(&self, other: &Self) -> Option<Rank> {
        if self.os != other.os || self.architecture != other.architecture {
            return None;
        }
        let wanted = match &self.variant {
            None if self.variant == other.variant => return Some(Rank::AsAsked),
            None => newest(&self.architecture),
            variant => level(&self.architecture, variant.as_deref()),
        };
        match (wanted, level(&self.architecture, other.variant.as_deref())) {
            _ if self.variant == other.variant => Some(Rank::AsAsked),
            (Some(wanted), Some(level)) if level <= wanted => Some(Rank::Earlier(Reverse(level))),
            (Some(_), Some(_)) => None,
            _ if other.variant.is_none() || self.variant.is_none() => Some(Rank::Unknown),
            _ => None,
        }
    }
}

/// How well an image fits, best first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Rank {
    AsAsked,
    /// Of an earlier variant: the latest first.
    Earlier(Reverse<Level>),
    /// Nothing is known of one of the variants.
    Unknown,
}

/// Major and minor number of a variant.
type Level = (u32, u32);

/// The number of a variant, where later ones run what is made for earlier ones.
fn level(architecture: &str, variant: Option<&str>) -> Option<Level> {
    let Some(variant) = variant else {
        return match architecture {
            "amd64" => Some((1, 0)),
            "arm64" => Some((8, 0)),
            _ => None,
        };
    };
    if !matches!(architecture, "amd64" | "arm64" | "arm") {
        return None;
    }
    let (major, minor) = variant.strip_prefix('v')?.split_once('.').unwrap_or((&variant[1..], "0"));
    Some((major.parse().ok()?, minor.parse().ok()?))
}

/// The latest variant that is meant when none is said.
fn newest(architecture: &str) -> Option<Level> {
    match architecture {
        "arm" => Some((7, 0)),
        "amd64" if architecture == host_architecture() => Some((host_amd64_level(), 0)),
        other => level(other, None),
    }
}

/// Which of the levels of the x86-64 psABI this processor has.
#[cfg(target_arch = "x86_64")]
fn host_amd64_level() -> u32 {
    macro_rules! has {
        ($($feature:tt)*) => { $(std::arch::is_x86_feature_detected!($feature))&&* };
    }
    let levels = [
        has!("cmpxchg16b" "popcnt" "sse3" "ssse3" "sse4.1" "sse4.2"),
        has!("avx" "avx2" "bmi1" "bmi2" "f16c" "fma" "lzcnt" "movbe" "xsave"),
        has!("avx512f" "avx512bw" "avx512cd" "avx512dq" "avx512vl"),
    ];
    levels.into_iter().take_while(|has| *has).fold(1, |level, _| level + 1)
}

#[cfg(not(target_arch = "x86_64"))]
fn host_amd64_level() -> u32 {
    1
}

impl FromStr for TargetPlatform {
    type Err = PlatformError;

    fn from_str(text: &str) -> Result<Self, PlatformError> {
        let word = |part: &str| {
            !part.is_empty()
                && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte))
        };
        let parts: Vec<&str> = text.split('/').collect();
        match parts[..] {
            [os, architecture] if parts.iter().all(|part| word(part)) => {
                Ok(Self::new(os, architecture, None))
            }
            [os, architecture, variant] if parts.iter().all(|part| word(part)) => {
                Ok(Self::new(os, architecture, Some(variant)))
            }
            _ => Err(PlatformError(text.to_owned())),
        }
    }
}

impl fmt::Display for TargetPlatform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        self.variant.iter().try_for_each(|variant| write!(f, "/{variant}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> TargetPlatform {
        text.parse().unwrap()
    }

    #[test]
    fn aliases_are_one() {
        for (text, same) in [
            ("linux/x86_64", "linux/amd64"),
            ("Linux/AArch64", "linux/arm64"),
            ("linux/arm64/v8", "linux/arm64"),
            ("linux/armhf", "linux/arm/v7"),
            ("linux/arm/6", "linux/arm/v6"),
            ("linux/i386", "linux/386"),
            ("linux/x86_64/v1", "linux/amd64"),
            ("linux/amd64/1", "linux/amd64"),
            ("linux/x86-64/v2", "linux/amd64/v2"),
            ("linux/aarch64/v9", "linux/arm64/v9"),
        ] {
            assert_eq!(parsed(text).to_string(), same);
        }
        for text in ["", "linux", "linux/", "/amd64", "a/b/c/d", "linux/am d64", "linux/amd64/"] {
            assert!(text.parse::<TargetPlatform>().is_err(), "{text:?}");
        }
    }

    fn choose<'a>(wanted: &str, offered: &[&'a str]) -> Option<&'a str> {
        parsed(wanted).choose(offered.iter().map(|text| (*text, parsed(text))))
    }

    #[test]
    fn variants() {
        let offered = ["linux/amd64/v3", "linux/amd64", "linux/arm/v6", "linux/arm/v7", "linux/arm64/v8"];
        for (wanted, found) in [
            ("linux/amd64", Some("linux/amd64")),
            ("linux/amd64/v3", Some("linux/amd64/v3")),
            ("linux/amd64/v4", Some("linux/amd64/v3")),
            ("linux/amd64/v2", Some("linux/amd64")),
            ("linux/x86_64/v1", Some("linux/amd64")),
            ("linux/arm", Some("linux/arm/v7")),
            ("linux/arm/v7", Some("linux/arm/v7")),
            ("linux/arm/v8", Some("linux/arm/v7")),
            ("linux/arm/v6", Some("linux/arm/v6")),
            ("linux/arm/v5", None),
            ("linux/arm64", Some("linux/arm64/v8")),
            ("linux/arm64/v8.2", Some("linux/arm64/v8")),
            ("linux/s390x", None),
            ("linux/386", None),
        ] {
            assert_eq!(choose(wanted, &offered), found, "{wanted}");
        }
    }

    #[test]
    fn later_variants_run_what_is_for_earlier_ones() {
        assert_eq!(choose("linux/amd64/v3", &["linux/amd64", "linux/amd64/v2"]), Some("linux/amd64/v2"));
        assert_eq!(choose("linux/amd64/v2", &["linux/amd64/v3", "linux/amd64/v4"]), None);
        assert_eq!(
            choose("linux/arm/v7", &["linux/arm/v8", "linux/arm/v5", "linux/arm/v6"]),
            Some("linux/arm/v6")
        );
        assert_eq!(
            choose("linux/arm", &["linux/arm/v5", "linux/arm/v8", "linux/arm/v6"]),
            Some("linux/arm/v6")
        );
        assert_eq!(choose("linux/arm/v6", &["linux/arm/v7", "linux/arm"]), Some("linux/arm"));
        assert_eq!(choose("linux/arm64", &["linux/arm64/v9"]), None);
        assert_eq!(choose("linux/arm64/v9", &["linux/arm64", "linux/arm64/v9.1"]), Some("linux/arm64"));
        // Of what is not known to be a row nothing follows.
        assert_eq!(choose("linux/ppc64le/power9", &["linux/ppc64le/power8"]), None);
        assert_eq!(
            choose("linux/ppc64le/power9", &["linux/ppc64le/power8", "linux/ppc64le"]),
            Some("linux/ppc64le")
        );
        assert_eq!(choose("linux/ppc64le", &["linux/ppc64le/power8"]), Some("linux/ppc64le/power8"));
    }

    #[test]
    fn this_machine_takes_what_it_can_run() {
        let levels: Vec<String> = (2..=5).map(|level| format!("linux/amd64/v{level}")).collect();
        let offered: Vec<&str> = levels.iter().map(String::as_str).collect();
        let own = host_amd64_level();
        let expected = (host_architecture() == "amd64" && own > 1).then(|| format!("linux/amd64/v{own}"));
        assert_eq!(choose("linux/amd64", &offered).map(str::to_owned), expected);
    }
}
