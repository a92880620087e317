//! How fast the data plane is without FUSE: building and asking indexes, reading layers, walking unions. Prints medians.
//!
//! `cargo bench --bench layers [FILTER]`; under a minute in all. `LAYERFS_BENCH_LAYER=layer.tar.gz` measures that layer
//! instead of made-up ones, beside zcat(1) and the decoder alone.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a program for developers: it fails by panicking"
)]

mod content;
mod made;
mod names;

use std::path::Path;
use std::time::Duration;

use made::{FRAME_BYTES, big_tar, compress, zstd_frames};

const ROUNDS: usize = 5;

fn main() {
    let filter = std::env::args().skip(1).find(|argument| !argument.starts_with('-')).unwrap_or_default();
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let bench = Bench { filter };
    if let Some(blob) = std::env::var_os("LAYERFS_BENCH_LAYER") {
        let blob = Path::new(&blob);
        bench.decoder(blob);
        bench.build("layer", blob);
        bench.reads("layer", blob);
        bench.readers("layer", blob);
        return;
    }
    let big = dir.path().join("big.tar");
    big_tar(&big);
    let compressed = dir.path().join("big.tar.gz");
    compress(&big, &compressed);
    let frame = dir.path().join("big.tar.zst");
    zstd_frames(&big, &frame, u64::MAX);
    let frames = dir.path().join("big-frames.tar.zst");
    zstd_frames(&big, &frames, FRAME_BYTES);
    for (name, path) in [("plain", &big), ("gzip", &compressed), ("zstd", &frame), ("zstd-frames", &frames)] {
        bench.build(name, path);
        bench.reads(name, path);
    }
    bench.cached(&compressed);
    bench.spill(&compressed);
    bench.view();
    for layers in [5, 50, 120] {
        bench.union(layers);
    }
}

struct Bench {
    filter: String,
}

impl Bench {
    fn wants_any(&self, names: &[String]) -> bool {
        names.iter().any(|name| name.contains(&self.filter))
    }

    /// Prints the median of several rounds, each of which tells how long it took for how much of `unit`.
    fn measure(&self, name: &str, unit: &str, mut round: impl FnMut() -> (f64, Duration)) {
        if !name.contains(&self.filter) {
            return;
        }
        let mut rates: Vec<f64> = (0..ROUNDS)
            .map(|_| {
                let (amount, time) = round();
                amount / time.as_secs_f64()
            })
            .collect();
        rates.sort_by(f64::total_cmp);
        let (low, median, high) = (rates[0], rates[ROUNDS / 2], rates[ROUNDS - 1]);
        println!("{name:<28} {median:>12.1} {unit} ({low:.1} .. {high:.1})");
    }
}
