//! The live counters of a mount as one document: what a server tells, and what is shown of it.
//!
//! A server answers a read of the extended attribute [`ATTRIBUTE`] of any of its objects with [`Stats::encode`]. It
//! refuses to set attributes in `system.` that are no ACLs, and shows none that an image has, so nothing is hidden by it.

mod json;
mod prometheus;
mod table;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::Distribution;

/// The attribute under which a mount tells its counters, to its owner. It is never listed.
pub const ATTRIBUTE: &str = "system.layerfs.stats";
/// Grows when an older reader would misunderstand; a reader skips fields that it does not know.
const FORMAT: u32 = 1;

/// Everything that is counted, since the mount began.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stats {
    format: u32,
    /// Of the server's program.
    pub version: String,
    /// The server.
    pub server: ServerStats,
    /// Requests of the kernel, all kinds, always in the same order.
    pub requests: Vec<RequestStats>,
    /// What they moved.
    pub traffic: TrafficStats,
    /// What is mounted.
    pub tree: TreeStats,
    /// Reading of compressed and plain layers.
    pub reads: ReadStats,
}

/// The process that answers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerStats {
    /// Since the mount began.
    pub uptime_ns: u64,
    /// Processor time in its own code.
    pub user_ns: u64,
    /// Processor time in the kernel.
    pub system_ns: u64,
    /// Memory.
    pub resident_bytes: u64,
    /// Threads that answer.
    pub threads: u64,
}

/// Requests of one kind.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RequestStats {
    /// As the kernel calls it (fuse(4)), in small letters.
    pub kind: String,
    /// From the decoded request to the answer that is ready to be sent.
    pub took: Distribution,
    /// How many were answered with an error, by its name (errno(3)).
    pub errors: BTreeMap<String, u64>,
}

/// What requests moved.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrafficStats {
    /// File content given to the kernel.
    pub read_bytes: u64,
    /// File content taken from the kernel.
    pub written_bytes: u64,
    /// Objects that the kernel gave back, which need no answer.
    pub forgotten: u64,
}

/// What is mounted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TreeStats {
    /// Layers.
    pub layers: u64,
    /// Objects that the kernel holds now.
    pub nodes: u64,
    /// Objects of layers that got their place in the upper.
    pub copy_ups: u64,
    /// Content that was copied from layers into the upper.
    pub copied_bytes: u64,
    /// Decoders kept now for readers that may go on.
    pub suspended_decoders: u64,
    /// Memory that they take.
    pub suspended_bytes: u64,
}

/// Where granules came from. What is read ahead counts like what is asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReadStats {
    /// Found in the memory cache at once.
    pub memory_hits: u64,
    /// Where the others came from, and how long that took.
    pub tiers: Vec<TierStats>,
    /// Asked for and not to be had.
    pub failed: u64,
    /// Those of them that were read ahead, before anybody asked; not what was decoded on the way to them.
    pub ahead: u64,
    /// Decodings that began at a checkpoint.
    pub decodes_resumed: u64,
    /// Decodings by a suspended decoder, which went on.
    pub decodes_continued: u64,
    /// Uncompressed bytes that decoders gave, what is skipped included.
    pub decoded_bytes: u64,
    /// Bytes that were hashed, and had the digest that the index says.
    pub verified_bytes: u64,
    /// Granules of a blob or of the spill that had another digest.
    pub mismatches: u64,
    /// Bytes in the memory cache now.
    pub cache_bytes: u64,
    /// Its limit.
    pub cache_bytes_max: u64,
    /// Written into the spill.
    pub spilled_bytes: u64,
    /// Granules that were not looked at by the spill because its writer was behind.
    pub spill_skipped: u64,
}

/// One source of granules other than the memory cache.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TierStats {
    /// `waited`, `spill`, `decoded`, `plain`.
    pub tier: String,
    /// Until the granule was there, verified. Of what is decoded, from when no other reader was decoding there.
    pub took: Distribution,
}

/// Why what a server told is not understood.
#[derive(Debug, thiserror::Error)]
pub enum StatsError {
    /// It is no such document.
    #[error("it is not understood: {0}")]
    Form(#[from] serde_json::Error),
    /// It is of another program.
    #[error(
        "it has format {0}, and this program knows {FORMAT}: ask with the version of layerfs that mounted it"
    )]
    Format(u32),
    /// It says what cannot be.
    #[error("it makes no sense")]
    Unsound,
}

impl Stats {
    /// All that is known.
    #[must_use]
    pub fn new(
        server: ServerStats,
        requests: Vec<RequestStats>,
        traffic: TrafficStats,
        tree: TreeStats,
        reads: ReadStats,
    ) -> Self {
        let version = env!("CARGO_PKG_VERSION").to_owned();
        Self { format: FORMAT, version, server, requests, traffic, tree, reads }
    }

    /// As it goes through the attribute. It fits: 16 threads that are busy for ten years fill less than 64 KiB.
    ///
    /// # Errors
    /// None that is known; what the serializer says.
    pub fn encode(&self) -> Result<Vec<u8>, serde_json::Error> {
        serde_json::to_vec(self)
    }

    /// What a server told. It may be anybody's: names are checked, because they are shown.
    ///
    /// # Errors
    /// [`StatsError`]
    pub fn decode(bytes: &[u8]) -> Result<Self, StatsError> {
        #[derive(Deserialize)]
        struct Head {
            format: u32,
        }
        let Head { format } = serde_json::from_slice(bytes)?;
        if format != FORMAT {
            return Err(StatsError::Format(format));
        }
        let stats: Self = serde_json::from_slice(bytes)?;
        if stats.is_sound() { Ok(stats) } else { Err(StatsError::Unsound) }
    }

    fn is_sound(&self) -> bool {
        let is_word = |word: &str| {
            let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-+".contains(&byte);
            (1..=64).contains(&word.len()) && word.bytes().all(is_plain)
        };
        let is_request = |request: &RequestStats| {
            is_word(&request.kind)
                && request.took.is_sound()
                && request.errors.keys().all(|error| is_word(error))
        };
        let is_tier = |tier: &TierStats| is_word(&tier.tier) && tier.took.is_sound();
        is_word(&self.version) && self.requests.iter().all(is_request) && self.reads.tiers.iter().all(is_tier)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::time::Duration;

    use super::*;
    use crate::model::Histogram;
    use crate::model::limits::XATTR_VALUE_BYTES_MAX;

    /// Something of everything.
    pub(crate) fn sample() -> Stats {
        let took = |nanos: &[u64]| {
            let histogram = Histogram::default();
            nanos.iter().for_each(|nanos| histogram.record(Duration::from_nanos(*nanos)));
            histogram.snapshot()
        };
        let request = |kind: &str, nanos: &[u64], errors: &[(&str, u64)]| RequestStats {
            kind: kind.to_owned(),
            took: took(nanos),
            errors: errors.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect(),
        };
        let requests = vec![
            request("lookup", &[300, 400, 1_500_000], &[]),
            request("getxattr", &[2000, 2000], &[("ENODATA", 1), ("EOPNOTSUPP", 1)]),
            request("fsync", &[], &[]),
        ];
        let tier = |tier: &str, nanos: &[u64]| TierStats { tier: tier.to_owned(), took: took(nanos) };
        let tiers = vec![tier("decoded", &[900_000, 70_000_000_000]), tier("plain", &[])];
        let reads = ReadStats {
            memory_hits: 12,
            tiers,
            decoded_bytes: 3 << 20,
            cache_bytes_max: 256 << 20,
            mismatches: 1,
            ..ReadStats::default()
        };
        let server = ServerStats {
            uptime_ns: 61_500_000_000,
            user_ns: 250_000_000,
            system_ns: 0,
            resident_bytes: 9 << 20,
            threads: 16,
        };
        let traffic = TrafficStats { read_bytes: 4096, written_bytes: 0, forgotten: 7 };
        let tree = TreeStats { layers: 2, nodes: 41, ..TreeStats::default() };
        Stats::new(server, requests, traffic, tree, reads)
    }

    #[test]
    fn what_was_told_is_understood() {
        let told = sample().encode().unwrap();
        assert_eq!(Stats::decode(&told).unwrap(), sample());
        let text = String::from_utf8(told).unwrap();
        // Of a later version of the same format.
        let more = text.replacen("\"threads\"", "\"news\":[1],\"threads\"", 1);
        assert_eq!(Stats::decode(more.as_bytes()).unwrap(), sample());
        let other = text.replacen("\"format\":1", "\"format\":2", 1);
        assert!(Stats::decode(other.as_bytes()).unwrap_err().to_string().contains("format 2"));
        for (from, to) in [
            ("lookup", "\\u001b[2J"),
            ("ENODATA", "\\\"} 1\\n"),
            ("decoded\"", "\""),
            ("\"first\":", "\"first\":999"),
        ] {
            let hostile = text.replacen(from, to, 1);
            assert!(hostile != text && Stats::decode(hostile.as_bytes()).is_err(), "{hostile}");
        }
        assert!(Stats::decode(b"").is_err() && Stats::decode(b"[]").is_err());
    }

    /// Every number as large as it can be, but for those that are checked.
    fn exaggerate(value: &mut serde_json::Value) {
        match value {
            serde_json::Value::Number(number) => *number = u64::MAX.into(),
            serde_json::Value::Array(values) => values.iter_mut().for_each(exaggerate),
            serde_json::Value::Object(fields) => {
                let fields = fields.iter_mut().filter(|(name, _)| *name != "format" && *name != "first");
                fields.for_each(|(_, value)| exaggerate(value));
            }
            _ => {}
        }
    }

    #[test]
    fn whatever_numbers_are_told_can_be_shown() {
        let mut told = serde_json::to_value(sample()).unwrap();
        exaggerate(&mut told);
        let stats = Stats::decode(told.to_string().as_bytes()).unwrap();
        assert!(stats.table().contains("18446744073709551615"));
        assert_eq!(stats.json()["tree"]["nodes"], u64::MAX);
        assert!(
            stats.prometheus("/m").contains("layerfs_uptime_seconds{mount=\"/m\"} 18446744073.709551615\n")
        );
    }

    #[test]
    fn ten_busy_years_fit() {
        let years = 10 * 365 * 24 * 3600 * 1_000_000_000_u64;
        let mut stats = sample();
        // Of 40 kinds each has its share of the time of 16 threads, in each of 114 buckets all of it.
        let request = |number: u32| {
            let counts: Vec<u64> = (0..114_u32).map(|bucket| 16 * (years >> (7 + bucket / 4)) / 40).collect();
            let took = serde_json::json!({
                "total_ns": years, "longest_ns": years, "first": 0, "counts": counts
            });
            let took = serde_json::from_value(took).unwrap();
            let errors = ["ENOENT", "ENODATA", "EOPNOTSUPP"].map(|name| (name.to_owned(), years >> 10));
            RequestStats { kind: format!("copy_file_range{number}"), took, errors: errors.into() }
        };
        stats.requests = (0..34).map(request).collect();
        stats.reads.tiers =
            (0..4).map(|tier| TierStats { tier: tier.to_string(), took: request(tier).took }).collect();
        let length = stats.encode().unwrap().len();
        assert!(length > XATTR_VALUE_BYTES_MAX / 2, "{length}: not what is meant");
        assert!(length < XATTR_VALUE_BYTES_MAX, "{length}");
    }
}
