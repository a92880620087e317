//! For monitoring: the text exposition format of Prometheus, version 0.0.4
//! (prometheus.io/docs/instrumenting/exposition_formats).

use std::fmt::{Display, Write as _};

use super::Stats;
use crate::model::Distribution;

impl Stats {
    /// What `layerfs stats --prometheus` prints. Every sample says which mount it is of.
    #[must_use]
    pub fn prometheus(&self, mount: &str) -> String {
        let mut page = Page { text: String::new(), mount: format!("mount=\"{}\"", escaped(mount)) };
        self.server_families(&mut page);
        self.request_families(&mut page);
        self.tree_families(&mut page);
        self.granule_families(&mut page);
        self.decoding_families(&mut page);
        page.text
    }

    fn server_families(&self, page: &mut Page) {
        let server = &self.server;
        page.family("info", "gauge", "The server of the mount.");
        page.sample("info", &[("version", &self.version)], 1);
        page.single("uptime_seconds", "gauge", "Since the mount began.", Seconds(server.uptime_ns));
        page.family("cpu_seconds_total", "counter", "Processor time of the server.");
        page.sample("cpu_seconds_total", &[("mode", "user")], Seconds(server.user_ns));
        page.sample("cpu_seconds_total", &[("mode", "system")], Seconds(server.system_ns));
        page.single("resident_memory_bytes", "gauge", "Memory of the server.", server.resident_bytes);
        page.single("threads", "gauge", "Threads that answer requests.", server.threads);
    }

    fn request_families(&self, page: &mut Page) {
        page.family("requests_total", "counter", "Requests of the kernel.");
        for request in &self.requests {
            page.sample("requests_total", &[("kind", &request.kind)], request.took.count());
        }
        page.family("request_errors_total", "counter", "Requests answered with an error.");
        for request in &self.requests {
            for (errno, count) in &request.errors {
                page.sample("request_errors_total", &[("kind", &request.kind), ("errno", errno)], count);
            }
        }
        let seen = self.requests.iter().filter(|request| request.took.count() > 0);
        let told = seen.map(|request| (request.kind.as_str(), &request.took));
        page.histograms("request_duration_seconds", "From the decoded request to its answer.", "kind", told);
        let traffic = &self.traffic;
        page.single("read_bytes_total", "counter", "File content given to the kernel.", traffic.read_bytes);
        page.single(
            "written_bytes_total",
            "counter",
            "File content taken from the kernel.",
            traffic.written_bytes,
        );
        page.single(
            "forgotten_nodes_total",
            "counter",
            "Objects that the kernel gave back.",
            traffic.forgotten,
        );
    }

    fn tree_families(&self, page: &mut Page) {
        let tree = &self.tree;
        page.single("layers", "gauge", "Layers of the image.", tree.layers);
        page.single("nodes", "gauge", "Objects that the kernel holds.", tree.nodes);
        page.single(
            "copy_ups_total",
            "counter",
            "Objects of layers that got their place in the upper.",
            tree.copy_ups,
        );
        page.single(
            "copied_bytes_total",
            "counter",
            "Content copied from layers into the upper.",
            tree.copied_bytes,
        );
        page.single(
            "suspended_decoders",
            "gauge",
            "Decoders kept for readers that may go on.",
            tree.suspended_decoders,
        );
        page.single(
            "suspended_decoder_bytes",
            "gauge",
            "Memory of suspended decoders.",
            tree.suspended_bytes,
        );
    }

    fn granule_families(&self, page: &mut Page) {
        let reads = &self.reads;
        page.family("granules_total", "counter", "Granules of layers, by where they came from.");
        page.sample("granules_total", &[("tier", "memory")], reads.memory_hits);
        for tier in &reads.tiers {
            page.sample("granules_total", &[("tier", &tier.tier)], tier.took.count());
        }
        let seen = reads.tiers.iter().filter(|tier| tier.took.count() > 0);
        let told = seen.map(|tier| (tier.tier.as_str(), &tier.took));
        page.histograms("granule_duration_seconds", "Until a granule was there, verified.", "tier", told);
        page.single("granules_failed_total", "counter", "Granules that could not be had.", reads.failed);
        page.single(
            "granules_ahead_total",
            "counter",
            "Granules read ahead, before anybody asked.",
            reads.ahead,
        );
        page.single("mismatches_total", "counter", "Granules that had a wrong digest.", reads.mismatches);
    }

    fn decoding_families(&self, page: &mut Page) {
        let reads = &self.reads;
        page.family("decodes_total", "counter", "Decodings, by what they began with.");
        page.sample("decodes_total", &[("start", "checkpoint")], reads.decodes_resumed);
        page.sample("decodes_total", &[("start", "suspended")], reads.decodes_continued);
        let bytes = [
            ("decoded_bytes_total", "counter", "Uncompressed bytes that decoders gave.", reads.decoded_bytes),
            ("verified_bytes_total", "counter", "Bytes hashed and found right.", reads.verified_bytes),
            ("cache_bytes", "gauge", "Granules in memory.", reads.cache_bytes),
            ("cache_limit_bytes", "gauge", "Granules in memory, at most.", reads.cache_bytes_max),
            ("spilled_bytes_total", "counter", "Granules written to the spill.", reads.spilled_bytes),
            (
                "spill_skipped_total",
                "counter",
                "Granules that the spill's writer had no time for.",
                reads.spill_skipped,
            ),
        ];
        for (name, kind, help, value) in bytes {
            page.single(name, kind, help, value);
        }
    }
}

/// What has been written so far.
struct Page {
    text: String,
    /// The label that every sample has.
    mount: String,
}

impl Page {
    fn line(&mut self, line: std::fmt::Arguments<'_>) {
        // Writing into a String cannot fail.
        writeln!(self.text, "{line}").ok();
    }

    fn family(&mut self, name: &str, kind: &str, help: &str) {
        self.line(format_args!("# HELP layerfs_{name} {help}"));
        self.line(format_args!("# TYPE layerfs_{name} {kind}"));
    }

    fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: impl Display) {
        let mut all = self.mount.clone();
        for (label, value) in labels {
            write!(all, ",{label}=\"{}\"", escaped(value)).ok();
        }
        self.line(format_args!("layerfs_{name}{{{all}}} {value}"));
    }

    fn single(&mut self, name: &str, kind: &str, help: &str, value: impl Display) {
        self.family(name, kind, help);
        self.sample(name, &[], value);
    }

    fn histograms<'a>(
        &mut self,
        name: &str,
        help: &str,
        label: &str,
        told: impl Iterator<Item = (&'a str, &'a Distribution)>,
    ) {
        self.family(name, "histogram", help);
        for (kind, took) in told {
            let bucket = format!("{name}_bucket");
            for (end, count) in took.cumulative() {
                self.sample(&bucket, &[(label, kind), ("le", &Seconds(end).to_string())], count);
            }
            self.sample(&bucket, &[(label, kind), ("le", "+Inf")], took.count());
            self.sample(&format!("{name}_sum"), &[(label, kind)], Seconds(took.total_ns));
            self.sample(&format!("{name}_count"), &[(label, kind)], took.count());
        }
    }
}

/// Nanoseconds, written as seconds, exactly.
struct Seconds(u64);

impl Display for Seconds {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{:09}", self.0 / 1_000_000_000, self.0 % 1_000_000_000)
    }
}

/// A label's value.
fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::super::tests::sample;

    #[test]
    fn lines() {
        let text = sample().prometheus("/a\"b\\c\nd");
        let mount = "mount=\"/a\\\"b\\\\c\\nd\"";
        for line in [
            "# TYPE layerfs_request_duration_seconds histogram".to_owned(),
            format!("layerfs_info{{{mount},version=\"{}\"}} 1", env!("CARGO_PKG_VERSION")),
            format!("layerfs_uptime_seconds{{{mount}}} 61.500000000"),
            format!("layerfs_requests_total{{{mount},kind=\"fsync\"}} 0"),
            format!("layerfs_request_errors_total{{{mount},kind=\"getxattr\",errno=\"ENODATA\"}} 1"),
            format!(
                "layerfs_request_duration_seconds_bucket{{{mount},kind=\"lookup\",le=\"0.000000256\"}} 0"
            ),
            format!(
                "layerfs_request_duration_seconds_bucket{{{mount},kind=\"lookup\",le=\"0.000000512\"}} 2"
            ),
            format!("layerfs_request_duration_seconds_bucket{{{mount},kind=\"lookup\",le=\"+Inf\"}} 3"),
            format!("layerfs_request_duration_seconds_sum{{{mount},kind=\"lookup\"}} 0.001500700"),
            format!("layerfs_granules_total{{{mount},tier=\"memory\"}} 12"),
            // Longer than the last bucket that has an end.
            format!(
                "layerfs_granule_duration_seconds_bucket{{{mount},tier=\"decoded\",le=\"68.719476736\"}} 1"
            ),
        ] {
            assert!(text.lines().any(|told| told == line), "{line} is not in\n{text}");
        }
        assert!(!text.contains("duration_seconds_count{mount=\"/a\\\"b\\\\c\\nd\",kind=\"fsync\""));
    }
}
