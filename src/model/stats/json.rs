//! For scripts: one object, durations in nanoseconds, sizes in bytes.

use serde_json::{Map, Value, json};

use super::Stats;
use crate::model::Distribution;

impl Stats {
    /// The object that `layerfs stats --json` prints.
    #[must_use]
    pub fn json(&self) -> Value {
        let requests: Map<String, Value> = self
            .requests
            .iter()
            .map(|request| {
                let mut shown = took(&request.took);
                shown.insert("errors".to_owned(), json!(request.errors));
                (request.kind.clone(), Value::Object(shown))
            })
            .collect();
        let mut granules: Map<String, Value> = self
            .reads
            .tiers
            .iter()
            .map(|tier| (tier.tier.clone(), Value::Object(took(&tier.took))))
            .collect();
        granules.insert("memory".to_owned(), json!({ "count": self.reads.memory_hits }));
        let mut reads = json!(self.reads);
        if let Some(reads) = reads.as_object_mut() {
            // They are there in a readable form.
            reads.remove("tiers");
            reads.remove("memory_hits");
        }
        json!({
            "version": self.version,
            "server": self.server,
            "tree": self.tree,
            "traffic": self.traffic,
            "requests": requests,
            "granules": granules,
            "reads": reads,
        })
    }
}

fn took(took: &Distribution) -> Map<String, Value> {
    let numbers = [
        ("count", took.count()),
        ("total_ns", took.total_ns),
        ("p50_ns", took.quantile_ns(500)),
        ("p90_ns", took.quantile_ns(900)),
        ("p99_ns", took.quantile_ns(990)),
        ("max_ns", took.longest_ns),
    ];
    numbers.map(|(name, number)| (name.to_owned(), json!(number))).into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::super::tests::sample;

    #[test]
    fn everything_is_there_once() {
        let shown = sample().json();
        let lookup = &shown["requests"]["lookup"];
        assert_eq!((&lookup["count"], &lookup["max_ns"]), (&3.into(), &1_500_000.into()));
        assert_eq!(shown["requests"]["getxattr"]["errors"]["ENODATA"], 1);
        assert_eq!(shown["requests"]["fsync"]["count"], 0);
        assert_eq!(shown["granules"]["memory"]["count"], 12);
        assert_eq!(shown["granules"]["decoded"]["max_ns"], 70_000_000_000_u64);
        assert_eq!(shown["reads"]["decoded_bytes"], 3 << 20);
        assert!(shown["reads"].get("tiers").is_none());
        assert_eq!((&shown["tree"]["nodes"], &shown["server"]["threads"]), (&41.into(), &16.into()));
    }
}
