//! What an image is made to run on, as `--platform` says it: `OS/ARCH[/VARIANT]` in Go's words, with the aliases that
//! containerd and docker know.

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

    fn new(os: &str, architecture: &str, variant: Option<&str>) -> Self {
        // Configs of old builders say nothing of the system.
        let os = if os.is_empty() { "linux".to_owned() } else { os.to_ascii_lowercase() };
        let architecture = architecture.to_ascii_lowercase();
        let variant = variant.filter(|variant| !variant.is_empty()).map(str::to_ascii_lowercase);
        let (architecture, variant) = match (architecture.as_str(), variant.as_deref()) {
            ("x86_64" | "x86-64", _) => ("amd64", variant),
            ("i386" | "x86", _) => ("386", None),
            ("aarch64", None) | ("arm64" | "aarch64", Some("8" | "v8")) => ("arm64", None),
            ("armhf", _) => ("arm", Some("v7".to_owned())),
            ("armel", _) => ("arm", Some("v6".to_owned())),
            ("arm", Some(number @ ("5" | "6" | "7" | "8"))) => ("arm", Some(format!("v{number}"))),
            ("amd64", Some("v1")) => ("amd64", None),
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
        self.os == other.os
            && self.architecture == other.architecture
            && (self.variant.is_none() || self.variant == other.variant)
    }

    /// The first that fits; without a variant asked for, one without is preferred: `amd64/v3` does not run on every amd64.
    pub(super) fn choose<T>(&self, all: impl Iterator<Item = (T, Self)> + Clone) -> Option<T> {
        let fitting = all.filter(|(_, one)| self.fits(one));
        let plain = fitting.clone().find(|(_, one)| one.variant == self.variant);
        plain.or_else(|| fitting.clone().next()).map(|(found, _)| found)
    }
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
        ] {
            assert_eq!(parsed(text).to_string(), same);
        }
        for text in ["", "linux", "linux/", "/amd64", "a/b/c/d", "linux/am d64", "linux/amd64/"] {
            assert!(text.parse::<TargetPlatform>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn variants() {
        let offered = ["linux/amd64/v3", "linux/amd64", "linux/arm/v6", "linux/arm/v7", "linux/arm64/v8"];
        let choose = |wanted: &str| parsed(wanted).choose(offered.iter().map(|text| (*text, parsed(text))));
        assert_eq!(choose("linux/amd64"), Some("linux/amd64"));
        assert_eq!(choose("linux/amd64/v3"), Some("linux/amd64/v3"));
        assert_eq!(choose("linux/arm"), Some("linux/arm/v6"));
        assert_eq!(choose("linux/arm/v7"), Some("linux/arm/v7"));
        assert_eq!(choose("linux/arm64"), Some("linux/arm64/v8"));
        assert_eq!(choose("linux/arm/v5"), None);
        assert_eq!(choose("linux/s390x"), None);
    }
}
