//! For people.

use std::fmt::Write as _;

use super::Stats;
use crate::model::Distribution;

/// Spaces between columns.
const GAP: &str = "   ";
/// What the columns of durations are called.
const DURATIONS: [&str; 5] = ["TOTAL", "P50", "P90", "P99", "MAX"];

impl Stats {
    /// What `layerfs stats` prints: what never happened is left out.
    #[must_use]
    pub fn table(&self) -> String {
        let mut text = self.overview();
        let mut requests = vec![heading("REQUEST", "COUNT", "ERRORS")];
        for request in self.requests.iter().filter(|request| request.took.count() > 0) {
            requests.push(row(&request.kind, request.took.count(), &told(&request.errors), &request.took));
        }
        let mut granules = vec![heading("GRANULES FROM", "COUNT", "")];
        if self.reads.memory_hits > 0 {
            let row = ["memory".to_owned(), self.reads.memory_hits.to_string()];
            granules.push(row.into_iter().chain(std::iter::repeat_n(String::new(), 6)).collect());
        }
        for tier in self.reads.tiers.iter().filter(|tier| tier.took.count() > 0) {
            granules.push(row(&tier.tier, tier.took.count(), "", &tier.took));
        }
        for part in [requests, granules] {
            if part.len() > 1 {
                text.push('\n');
                text.push_str(&aligned(&part));
            }
        }
        text
    }

    fn overview(&self) -> String {
        let (server, tree, traffic, reads) = (&self.server, &self.tree, &self.traffic, &self.reads);
        let lines = [
            (
                "server",
                format!(
                    "layerfs {}, up {}, processor {} + {} in the kernel, memory {}, {} threads",
                    self.version,
                    duration(server.uptime_ns),
                    duration(server.user_ns),
                    duration(server.system_ns),
                    bytes(server.resident_bytes),
                    server.threads,
                ),
            ),
            (
                "tree",
                format!("{} layers, {} nodes, {} forgotten", tree.layers, tree.nodes, traffic.forgotten),
            ),
            (
                "traffic",
                format!("{} read, {} written", bytes(traffic.read_bytes), bytes(traffic.written_bytes)),
            ),
            ("copied up", format!("{} objects, {}", tree.copy_ups, bytes(tree.copied_bytes))),
            (
                "decoded",
                format!(
                    "{} from {} checkpoints and {} suspended decoders; kept {}, {}",
                    bytes(reads.decoded_bytes),
                    reads.decodes_resumed,
                    reads.decodes_continued,
                    tree.suspended_decoders,
                    bytes(tree.suspended_bytes),
                ),
            ),
            (
                "verified",
                format!(
                    "{}, {} mismatches, {} granules failed",
                    bytes(reads.verified_bytes),
                    reads.mismatches,
                    reads.failed
                ),
            ),
            (
                "cache",
                format!(
                    "{} of {}, {} granules read ahead",
                    bytes(reads.cache_bytes),
                    bytes(reads.cache_bytes_max),
                    reads.ahead
                ),
            ),
            (
                "spill",
                format!("{} written, {} granules skipped", bytes(reads.spilled_bytes), reads.spill_skipped),
            ),
        ];
        let mut text = String::new();
        for (name, value) in lines {
            // Writing into a String cannot fail.
            writeln!(text, "{name:<10} {value}").ok();
        }
        text
    }
}

fn heading(first: &str, second: &str, third: &str) -> Vec<String> {
    [first, second, third].into_iter().chain(DURATIONS).map(str::to_owned).collect()
}

fn row(name: &str, count: u64, errors: &str, took: &Distribution) -> Vec<String> {
    let durations =
        [took.total_ns, took.quantile_ns(500), took.quantile_ns(900), took.quantile_ns(990), took.longest_ns];
    let words = [name.to_owned(), count.to_string(), errors.to_owned()];
    words.into_iter().chain(durations.map(duration)).collect()
}

fn told(errors: &std::collections::BTreeMap<String, u64>) -> String {
    errors.iter().map(|(name, count)| format!("{name} {count}")).collect::<Vec<_>>().join(", ")
}

/// The first and the third column begin at the left, numbers end at the right.
fn aligned(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width =
        |column: usize| rows.iter().filter_map(|row| row.get(column)).map(String::len).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut text = String::new();
    for row in rows {
        let mut line = String::new();
        for (column, (cell, width)) in
            row.iter().zip(&widths).enumerate().filter(|(_, (_, width))| **width > 0)
        {
            if !line.is_empty() {
                line.push_str(GAP);
            }
            let written = if matches!(column, 0 | 2) {
                write!(line, "{cell:<width$}")
            } else {
                write!(line, "{cell:>width$}")
            };
            written.ok();
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// Three digits, about.
fn duration(nanos: u64) -> String {
    let (unit, name) = match nanos {
        0 => return "0".to_owned(),
        1..1_000 => return format!("{nanos}ns"),
        1_000..1_000_000 => (1_000, "us"),
        1_000_000..1_000_000_000 => (1_000_000, "ms"),
        1_000_000_000..60_000_000_000 => (1_000_000_000, "s"),
        _ => {
            let seconds = nanos / 1_000_000_000;
            let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
            return if hours > 0 {
                format!("{hours}h{minutes:02}m")
            } else {
                format!("{minutes}m{seconds:02}s")
            };
        }
    };
    scaled(nanos, unit, name)
}

fn bytes(bytes: u64) -> String {
    match bytes {
        0..1_024 => format!("{bytes} B"),
        1_024..1_048_576 => scaled(bytes, 1 << 10, " KiB"),
        1_048_576..1_073_741_824 => scaled(bytes, 1 << 20, " MiB"),
        _ => scaled(bytes, 1 << 30, " GiB"),
    }
}

/// With one digit behind the point below 100.
fn scaled(value: u64, unit: u64, name: &str) -> String {
    let (whole, tenth) = (value / unit, value % unit * 10 / unit);
    if whole < 100 { format!("{whole}.{tenth}{name}") } else { format!("{whole}{name}") }
}

#[cfg(test)]
mod tests {
    use super::super::tests::sample;
    use super::*;

    #[test]
    fn columns() {
        let text = sample().table();
        let parts: Vec<&str> = text.split("\n\n").collect();
        assert_eq!(parts.len(), 3, "{text}");
        assert!(
            parts[0].starts_with("server     layerfs ")
                && parts[0].contains(", up 1m01s, processor 250ms + 0 in")
        );
        assert_eq!(
            parts[1],
            "REQUEST    COUNT   ERRORS                    TOTAL     P50     P90     P99     MAX\n\
             lookup         3                             1.5ms   416ns   1.4ms   1.4ms   1.5ms\n\
             getxattr       2   ENODATA 1, EOPNOTSUPP 1   4.0us   1.9us   1.9us   1.9us   2.0us"
        );
        let granules: Vec<&str> = parts[2].lines().collect();
        assert!(granules[1].starts_with("memory"), "{text}");
        assert!(granules[2].starts_with("decoded") && granules[2].ends_with("1m10s"), "{text}");
        assert_eq!(granules.len(), 3, "what never happened is left out");
    }

    #[test]
    fn units() {
        let times =
            [0, 999, 1_000, 99_950, 123_456, 7_000_000, 59_999_999_999, 60_000_000_000, 7_322_000_000_000];
        let shown = ["0", "999ns", "1.0us", "99.9us", "123us", "7.0ms", "59.9s", "1m00s", "2h02m"];
        assert_eq!(times.map(duration), shown);
        assert_eq!([0, 1023, 1024, 5 << 29].map(bytes), ["0 B", "1023 B", "1.0 KiB", "2.5 GiB"]);
    }
}
