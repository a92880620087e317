//! Layers as every compressor writes them: each byte is that of the plain tar, wherever one begins to read.

use std::io::Write as _;
use std::process::{Command, Stdio};
use std::sync::Arc;

use proptest::prelude::*;

use super::tar_tests::{Maker, check_reads, content, gzip, id, layer, listing, noise, open};
use super::{ChunkCache, Layer, LayerError, TarLayer};
use crate::index::{self, Encoding, Expected, IndexError, LayerIndex};
use crate::model::{Digest, TarOffset};
use crate::sys::file_range::FileRange;

/// A zstd frame without content that a reader skips: a table of contents, for instance.
fn skippable(content: &[u8]) -> Vec<u8> {
    let len = u32::try_from(content.len()).unwrap();
    [&[0x5e, 0x2a, 0x4d, 0x18], &len.to_le_bytes()[..], content].concat()
}

/// What a program makes of its input.
pub(super) fn through(command: &str, data: &[u8]) -> Vec<u8> {
    let mut child = Command::new("sh")
        .args(["-c", command])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = child.stdin.take().unwrap();
    std::thread::scope(|scope| {
        scope.spawn(move || input.write_all(data));
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{command} failed: is it installed? scripts/install does that");
        output.stdout
    })
}

/// The parts as separate files put together.
fn parts(command: &str, data: &[u8], bytes: usize) -> Vec<u8> {
    data.chunks(bytes).flat_map(|part| through(command, part)).collect()
}

pub(super) fn tar_of(data: &[u8]) -> Vec<u8> {
    Maker::default().add(b'0', "big", "", data).end()
}

/// Where decoding can start.
fn checkpoints(layer: &TarLayer) -> Vec<u64> {
    let mut places = Vec::new();
    let mut place = TarOffset(0);
    while let Some(checkpoint) = layer.index().checkpoint(place).unwrap() {
        if places.last() == Some(&checkpoint.place.0) {
            break;
        }
        assert!(checkpoint.end > checkpoint.place || checkpoint.end.0 == layer.index().tar_bytes());
        places.push(checkpoint.place.0);
        place = checkpoint.end;
    }
    places
}

#[test]
fn what_real_compressors_write() {
    let data = noise(3_000_000, 23);
    let tar = tar_of(&data);
    for (command, encoding, starts) in [
        ("pigz -b 128", Encoding::Gzip, 4..9),
        ("pigz -i -b 256", Encoding::Gzip, 4..9),
        ("bgzip", Encoding::Gzip, 4..25),
        ("zstd -1 -T1", Encoding::Zstd, 1..2),
        ("zstd -19 --long=27 --no-check", Encoding::Zstd, 1..2),
        ("cat >/dev/null; printf ''", Encoding::Tar, 0..1),
        ("xz -0 -T1", Encoding::Xz, 1..2),
        ("xz -0 -T2 --block-size=1MiB", Encoding::Xz, 3..4),
        ("xz -0 --block-size=300KiB --check=sha256", Encoding::Xz, 10..11),
        ("xz -0 --check=none --x86 --lzma2=preset=0", Encoding::Xz, 1..2),
        ("xz -0 --check=crc32 --delta=dist=4 --lzma2=preset=0", Encoding::Xz, 1..2),
        ("bzip2 -1", Encoding::Bzip2, 1..2),
        ("pbzip2 -1 -p2 -b5 -c", Encoding::Bzip2, 7..8),
    ] {
        let blob = through(command, &tar);
        let layer = layer(&blob).unwrap();
        assert_eq!(layer.index().encoding(), encoding, "{command}");
        let found = checkpoints(&layer).len();
        assert!(starts.contains(&found), "{command}: {found} checkpoints");
        if encoding == Encoding::Tar {
            assert!(listing(&layer).is_empty());
            continue;
        }
        assert!(!layer.index().checkpoint(TarOffset(0)).unwrap().unwrap().is_long(), "{command}");
        check_reads(&blob, &data);
    }
}

#[test]
fn pieces_put_together() {
    let data = noise(2_000_000, 29);
    let tar = tar_of(&data);
    for (command, starts) in [("gzip -1", 12), ("zstd -1", 12), ("xz -0", 12), ("bzip2 -1", 12)] {
        let blob = parts(command, &tar, 170_000);
        assert_eq!(checkpoints(&layer(&blob).unwrap()).len(), starts, "{command}");
        check_reads(&blob, &data);
        // Too small for a checkpoint each: every one takes 128 KiB together.
        let blob = parts(command, &tar_of(&data[..600_000]), 20_000);
        assert_eq!(checkpoints(&layer(&blob).unwrap()).len(), 5, "{command}");
    }
}

#[test]
fn frames_with_tables_between_and_after_them() {
    let data = noise(1_500_000, 31);
    let tar = tar_of(&data);
    let mut blob = skippable(b"");
    for part in tar.chunks(200_000) {
        blob.extend(zstd::bulk::compress(part, 1).unwrap());
        blob.extend(skippable(&noise(300_000, 1)));
    }
    blob.extend(zstd::bulk::compress(b"", 1).unwrap());
    blob.extend(skippable(b"\xb1\xea\x92\x8f seek table"));
    check_reads(&blob, &data);
    assert_eq!(checkpoints(&layer(&blob).unwrap()).len(), 8);
    let error = layer(&[&blob[..], &[0x50, 0x2a, 0x4d, 0x18, 9, 0, 0, 0, 1]].concat()).unwrap_err();
    assert!(error.to_string().contains("cut off"), "{error}");
}

#[test]
fn nothing_in_every_encoding() {
    let mut blobs = vec![Vec::new(), skippable(b"only this")];
    for command in ["gzip", "zstd", "xz", "bzip2"] {
        let empty = through(command, b"");
        blobs.push([&empty[..], &empty, &[0; 8]].concat());
        // Nothing, then an archive; nothing after it.
        let tar = Maker::default().file("a", "x").end();
        let around = [&empty[..], &through(command, &tar), &empty].concat();
        assert_eq!(content(&layer(&around).unwrap(), "a"), b"x", "{command}");
        blobs.push(empty);
    }
    for blob in blobs {
        let layer = layer(&blob).unwrap();
        assert!(listing(&layer).is_empty());
        assert_eq!(layer.index().tar_bytes(), 0);
    }
}

/// A small layer as each tool compresses it, with several pieces.
fn small_blobs(tar: &[u8]) -> Vec<(&'static str, Vec<u8>)> {
    let bytes = tar.len() / 3 + 1;
    let with_table = [zstd::bulk::compress(tar, 3).unwrap(), skippable(b"table")].concat();
    vec![
        ("gzip", parts("gzip", tar, bytes)),
        ("zstd", parts("zstd", tar, bytes)),
        ("zstd with a table", with_table),
        ("xz", parts("xz", tar, bytes)),
        ("xz blocks", through("xz -T2 --block-size=64KiB", tar)),
        ("bzip2", parts("bzip2", tar, bytes)),
    ]
}

#[test]
fn ends_of_blobs() {
    let tar = tar_of(&noise(150_000, 37));
    for (name, blob) in small_blobs(&tar) {
        let whole = layer(&blob).unwrap();
        assert!(layer(&[&blob[..], &[0; 4096]].concat()).is_ok(), "{name}: padded with zeros");
        for garbage in [&b"garbage"[..], b"\0\0\0\0garbage", &blob[..3]] {
            let error = layer(&[&blob[..], garbage].concat()).unwrap_err();
            assert!(matches!(error, IndexError::Encoded { .. }), "{name}: {error:?}");
            let text = error.to_string();
            assert!(text.contains("blob: bad ") && text.contains(" at offset "), "{name}: {text}");
        }
        // Where a piece ends the rest may be missing: then it is the tar that is cut off, or the digest that is wrong.
        let expected = Expected { blob: None, diff_id: Some(whole.index().diff_id()) };
        let dir = tempfile::tempdir().unwrap();
        let mut cut_off = 0;
        let lens = (0..blob.len()).step_by(blob.len() / 47).chain(blob.len() - 40..blob.len());
        for len in lens {
            std::fs::write(dir.path().join("blob"), &blob[..len]).unwrap();
            let range = FileRange::open(&dir.path().join("blob")).unwrap();
            match index::build(&range, &expected, dir.path(), "index", &|_| {}) {
                Err(IndexError::Encoded { reason, .. }) if reason == "cut off" => cut_off += 1,
                Err(IndexError::Mismatch { .. } | IndexError::Tar { .. }) => {}
                // The table is no part of the layer.
                Ok(()) if name == "zstd with a table" => {}
                other => panic!("{name} cut to {len}: {other:?}"),
            }
        }
        assert!(cut_off > 60, "{name}: {cut_off}");
    }
}

#[test]
fn a_flipped_byte_is_never_served() {
    let data = noise(250_000, 41);
    let tar = tar_of(&data);
    for (name, blob) in small_blobs(&tar) {
        let dir = tempfile::tempdir().unwrap();
        drop(open(dir.path(), &blob).unwrap());
        let mut noticed = 0;
        for place in (0..blob.len()).step_by(blob.len() / 40) {
            let mut bad = blob.clone();
            bad[place] ^= 1 << (place % 8);
            std::fs::write(dir.path().join("bad"), &bad).unwrap();
            let range = FileRange::open(&dir.path().join("bad")).unwrap();
            let index = Arc::new(LayerIndex::open(&dir.path().join("index")).unwrap());
            let expected = Expected { blob: None, diff_id: Some(index.diff_id()) };
            let layer = TarLayer::new(index, range.clone(), Arc::new(ChunkCache::new(1 << 20)));
            let id = id(&layer, "big");
            for offset in (0..data.len()).step_by(50_000) {
                let mut bytes = vec![0; 50_000];
                match layer.read_at(id, offset as u64, &mut bytes) {
                    Ok(count) => assert!(bytes[..count] == data[offset..offset + count], "{name} {place}"),
                    Err(LayerError::Corrupt { .. }) => {
                        noticed += 1;
                        break;
                    }
                    Err(other) => panic!("{name} {place}: {other}"),
                }
            }
            match index::build(&range, &expected, dir.path(), "other", &|_| {}) {
                Ok(()) => std::fs::remove_file(dir.path().join("other")).unwrap(),
                Err(IndexError::Encoded { .. } | IndexError::Mismatch { .. } | IndexError::Tar { .. }) => {}
                Err(other) => panic!("{name} {place}: {other}"),
            }
        }
        assert!(noticed > 30, "{name}: {noticed}");
    }
}

fn refused(blob: &[u8]) -> String {
    match layer(blob) {
        Err(error @ IndexError::Encoded { .. }) => error.to_string(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_asks_for_too_much_or_for_what_is_not_there() {
    let tar = tar_of(&noise(50_000, 43));
    // The descriptor of RFC 8878, section 3.1.1.1.1, says how long the number of the dictionary is.
    for (descriptor, number) in [(1, 7), (2, 0x0107), (3, 0x0301_0107)] {
        let bytes = [0x28, 0xb5, 0x2f, 0xfd, descriptor, 0, 7, 1, 1, 3];
        assert!(refused(&bytes).contains(&format!("needs dictionary {number}, ")));
    }
    // Without a number the decoder finds that there is something that it does not have.
    let mut with_dictionary = zstd::bulk::Compressor::with_dictionary(3, &tar[1024..]).unwrap();
    refused(&with_dictionary.compress(&tar).unwrap());

    let windows = through("zstd -1 --long=27 -c", &tar);
    layer(&windows).unwrap();
    // 129 MiB: the window descriptor of RFC 8878, section 3.1.1.1.2.
    let error = refused(&[0x28, 0xb5, 0x2f, 0xfd, 0, 17 << 3 | 1, 1, 0, 0]);
    assert!(error.contains("window of 144 MiB, at most 128 MiB"), "{error}");
    let error = refused(&[0x28, 0xb5, 0x2f, 0xfd, 0xe0, 0, 0, 0, 0, 1, 0, 0, 0]);
    assert!(error.contains("window of 4096 MiB"), "{error}");

    layer(&through("xz -0 --lzma2=preset=0,dict=128MiB", &tar)).unwrap();
    let error = refused(&through("xz --lzma2=preset=0,dict=256MiB", &tar));
    assert!(error.contains("dictionary of 256 MiB, at most 128 MiB"), "{error}");
}

#[test]
fn headers_that_lie() {
    let tar = tar_of(&noise(50_000, 47));
    // A frame of one segment says how long it is: 4 bytes after the descriptor.
    let frame = zstd::bulk::compress(&tar, 1).unwrap();
    assert_eq!(frame[4] & 0xe0, 0x60, "2 bytes of content size, less 256");
    for size in [0_u16, 100, 0xffff] {
        let mut lying = frame.clone();
        lying[5..7].copy_from_slice(&size.to_le_bytes());
        refused(&lying);
    }
    // Blocks of several threads say how long they are.
    let blocks = through("xz -0 -T2 --block-size=16KiB", &tar);
    assert_eq!(blocks[13] & 0xc0, 0xc0);
    for place in [14, 15, 16, 17, 18] {
        let mut lying = blocks.clone();
        lying[place] ^= 1;
        let len = usize::from(lying[12]) * 4;
        let crc32 = crc32fast::hash(&lying[12..12 + len]);
        lying[12 + len..16 + len].copy_from_slice(&crc32.to_le_bytes());
        refused(&lying);
    }
    let mut lying = blocks.clone();
    lying[8] ^= 1;
    assert!(refused(&lying).contains("header of a stream has a wrong CRC-32"));
    let mut lying = blocks;
    let len = lying.len();
    lying[len - 14] ^= 1;
    assert!(refused(&lying).contains("index of a stream has a wrong CRC-32"));
}

#[test]
fn bombs_take_no_memory() {
    // In a process of its own: what other tests need at the same time does not count.
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--ignored", "--exact", "layer::encoding_tests::bombs"]);
    let output = command.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("1 passed"), "{text}");
}

#[test]
#[ignore = "run by bombs_take_no_memory"]
fn bombs() {
    // Zeros: the longest matches that each encoding has. And a frame that asks for as much history as is accepted.
    let tar_bytes = 300 << 20;
    for packer in ["gzip -9", "zstd -1 --long=27", "xz -0 -T1"] {
        let blob = through(&format!("head -c {tar_bytes} /dev/zero | {packer}"), b"");
        assert_eq!(layer(&blob).unwrap().index().tar_bytes(), tar_bytes, "{packer}");
    }
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    let peak: u64 = peak.trim().trim_end_matches(" kB").parse().unwrap();
    assert!(peak < 200 << 10, "{peak} KiB");
}

#[test]
fn readers_of_one_long_span() {
    // One frame, several readers at different places, a cache that holds next to nothing.
    let data = noise(4_800_000, 53);
    let tar = tar_of(&data);
    for command in ["zstd -1", "xz -0 -T1", "bzip2 -1"] {
        let dir = tempfile::tempdir().unwrap();
        drop(open(dir.path(), &through(command, &tar)).unwrap());
        let index = Arc::new(LayerIndex::open(&dir.path().join("index")).unwrap());
        let span = index.checkpoint(TarOffset(4_000_000)).unwrap().unwrap();
        assert!(span.is_long() && span.place.0 == 0 && span.span_bytes() == index.tar_bytes(), "{command}");
        let blob = FileRange::open(&dir.path().join("blob")).unwrap();
        let layer = TarLayer::new(index, blob, Arc::new(ChunkCache::new(8 * 140_000)));
        let id = id(&layer, "big");
        std::thread::scope(|scope| {
            for first in [0, 1_600_000, 3_200_000] {
                let (layer, data) = (&layer, &data);
                scope.spawn(move || {
                    for offset in (first..first + 1_400_000).step_by(140_000) {
                        let mut bytes = vec![0; 70_000];
                        assert_eq!(layer.read_at(id, offset as u64, &mut bytes).unwrap(), 70_000);
                        assert!(bytes == data[offset..offset + 70_000], "{command} at {offset}");
                    }
                });
            }
        });
    }
}

#[test]
fn keys_of_every_encoding_tell_blobs_apart() {
    let dir = tempfile::tempdir().unwrap();
    let diff_id = Digest::from_bytes([1; 32]);
    let tar = tar_of(b"content");
    let mut keys: Vec<String> = small_blobs(&tar)
        .into_iter()
        .chain([("tar", tar.clone()), ("fast", gzip(&tar, 1)), ("stored", gzip(&tar, 0))])
        .map(|(_, blob)| {
            std::fs::write(dir.path().join("blob"), blob).unwrap();
            let range = FileRange::open(&dir.path().join("blob")).unwrap();
            index::key(&range, None, &diff_id).unwrap()
        })
        .collect();
    let count = keys.len();
    keys.sort();
    keys.dedup();
    assert_eq!(keys.len(), count);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn random_reads_of_random_pieces(
        len in 1..1_500_000_usize,
        seed in any::<u64>(),
        piece in 5_000..700_000_usize,
        encoding in 0..4_usize,
        reads in prop::collection::vec((any::<usize>(), 0..200_000_usize), 1..12),
    ) {
        let data = noise(len, seed);
        let tar = tar_of(&data);
        let mut blob = Vec::new();
        for part in tar.chunks(piece) {
            match encoding {
                0 => blob.extend(gzip(part, 1)),
                1 => blob.extend(zstd::bulk::compress(part, 1).unwrap()),
                2 => blob.extend(through("xz -0 -T1", part)),
                _ => blob.extend(through("bzip2 -1", part)),
            }
        }
        let dir = tempfile::tempdir().unwrap();
        let layer = open(dir.path(), &blob).unwrap();
        let id = id(&layer, "big");
        for (offset, count) in reads {
            let offset = offset % (data.len() + 1);
            let mut bytes = vec![0; count];
            let read = layer.read_at(id, offset as u64, &mut bytes).unwrap();
            prop_assert_eq!(read, count.min(data.len() - offset));
            prop_assert!(bytes[..read] == data[offset..offset + read]);
        }
    }

    #[test]
    fn no_compressed_bytes_make_it_panic(
        changes in prop::collection::vec((any::<usize>(), any::<u8>()), 1..8),
        cut in any::<usize>(),
    ) {
        let tar = tar_of(&noise(20_000, 59));
        for (_, mut blob) in small_blobs(&tar) {
            for (place, byte) in &changes {
                let place = place % blob.len();
                blob[place] = *byte;
            }
            if cut % 3 == 0 {
                blob.truncate(cut / 3 % blob.len());
            }
            match layer(&blob) {
                Ok(layer) => drop(layer.read_dir(layer.root()).unwrap()),
                // The process would live on, but it is a defect.
                Err(error) => prop_assert!(!error.to_string().contains("panicked"), "{}", error),
            }
        }
    }
}
