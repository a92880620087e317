//! Files with holes (GNU tar manual, "Storing Sparse Files"): the old format and PAX versions 0.0, 0.1 and 1.0.

use std::io::BufRead;

use super::header::{Header, number};
use super::pax::decimal;
use super::{Body, Data, Input, Problem};
use crate::index::tree::Hunk;

/// Stretches of data in one file. Ten times what a fragmented 100 GB disk image was seen to have (CVE-2025-58183 is
/// what happens without a limit).
const HUNKS_MAX: usize = 1 << 20;

/// What `GNU.sparse.*` records say.
#[derive(Debug, Default)]
pub(super) struct PaxSparse {
    pub(super) name: Option<Vec<u8>>,
    major: u64,
    minor: u64,
    is_versioned: bool,
    size: Option<u64>,
    /// Offset and length by turns.
    map: Vec<u64>,
}

impl PaxSparse {
    pub(super) fn set(&mut self, key: &[u8], value: &[u8]) -> Result<(), Problem> {
        let need = || decimal(value)?.ok_or_else(|| Problem::from("a sparse header has no value"));
        match key {
            b"name" => self.name = Some(value.to_vec()),
            b"major" => (self.major, self.is_versioned) = (need()?, true),
            b"minor" => self.minor = need()?,
            b"size" | b"realsize" => self.size = Some(need()?),
            b"offset" if self.map.len().is_multiple_of(2) => self.map.push(need()?),
            b"numbytes" if !self.map.len().is_multiple_of(2) => self.map.push(need()?),
            b"offset" | b"numbytes" => return Err("a sparse map is malformed".into()),
            b"map" => {
                let items = value.split(|byte| *byte == b',').filter(|item| !item.is_empty());
                let numbers: Result<Vec<_>, _> = items.map(decimal).collect();
                self.map = numbers?.into_iter().flatten().collect();
            }
            _ => {}
        }
        Ok(())
    }

    /// Any of its records: a map without a size would else be taken for content.
    pub(super) fn is_used(&self) -> bool {
        self.size.is_some() || self.name.is_some() || self.is_versioned || !self.map.is_empty()
    }
}

/// A file whose map is in PAX records, or, in version 1.0, before its data.
pub(super) fn pax<R: BufRead>(
    input: &mut Input<R>,
    sparse: &PaxSparse,
    stored: u64,
) -> Result<Body, Problem> {
    let size = sparse.size.ok_or("a sparse file has no size")?;
    if !sparse.is_versioned || sparse.major == 0 {
        return finish(input, size, &sparse.map, stored);
    }
    if (sparse.major, sparse.minor) != (1, 0) {
        return Err(format!("sparse format {}.{} is unknown", sparse.major, sparse.minor).into());
    }
    let start = input.position;
    let mut text = Vec::new();
    let mut numbers: Vec<u64> = Vec::new();
    let mut wanted = 1;
    while numbers.len() < wanted {
        let block = input.block()?.ok_or("cut off inside a sparse map")?;
        for byte in block {
            if byte != b'\n' {
                text.push(byte);
                continue;
            }
            if numbers.len() == wanted {
                break;
            }
            numbers.push(decimal(&text)?.ok_or("a sparse map is malformed")?);
            text.clear();
            if numbers.len() == 1 {
                let hunks = usize::try_from(numbers[0]).ok().filter(|hunks| *hunks <= HUNKS_MAX);
                wanted = 1 + 2 * hunks.ok_or("a sparse map is too long")?;
            }
        }
        if text.len() > 512 {
            return Err("a sparse map is malformed".into());
        }
    }
    let data = stored.checked_sub(input.position - start).ok_or("a sparse map is longer than its file")?;
    finish(input, size, &numbers[1..], data)
}

/// A file of type `S`: the map is in the header and in blocks after it.
pub(super) fn old_gnu<R: BufRead>(
    input: &mut Input<R>,
    header: &Header<'_>,
    stored: u64,
) -> Result<Body, Problem> {
    let block = header.block();
    let unsigned = |field: &[u8]| -> Result<u64, Problem> {
        u64::try_from(number(field)?).map_err(|_| "a sparse map is malformed".into())
    };
    let size = unsigned(&block[483..495])?;
    let mut map = Vec::new();
    let mut add = |entries: &[u8]| -> Result<(), Problem> {
        for entry in entries.chunks_exact(24).take_while(|entry| entry[0] != 0) {
            map.extend([unsigned(&entry[..12])?, unsigned(&entry[12..])?]);
        }
        if map.len() > 2 * HUNKS_MAX { Err("a sparse map is too long".into()) } else { Ok(()) }
    };
    add(&block[386..482])?;
    let mut is_extended = block[482] != 0;
    while is_extended {
        let more = input.block()?.ok_or("cut off inside a sparse map")?;
        add(&more[..504])?;
        is_extended = more[504] != 0;
    }
    finish(input, size, &map, stored)
}

/// Checks the map, and reads past the data.
fn finish<R: BufRead>(input: &mut Input<R>, size: u64, map: &[u64], stored: u64) -> Result<Body, Problem> {
    if !map.len().is_multiple_of(2) || map.len() > 2 * HUNKS_MAX {
        return Err("a sparse map is malformed".into());
    }
    let mut hunks = Vec::new();
    let (mut end, mut used) = (0_u64, 0_u64);
    for pair in map.chunks_exact(2) {
        let (file_offset, len) = (pair[0], pair[1]);
        let stop = file_offset.checked_add(len).filter(|stop| file_offset >= end && *stop <= size);
        end = stop.ok_or("a sparse map is not in order")?;
        let tar_offset = input.position.checked_add(used).ok_or("a sparse map is malformed")?;
        if len > 0 {
            hunks.push(Hunk { file_offset, len, tar_offset });
        }
        used = used.checked_add(len).ok_or("a sparse map is malformed")?;
    }
    if used != stored {
        return Err(format!("a sparse map names {used} bytes, but there are {stored}").into());
    }
    if i64::try_from(size).is_err() {
        return Err("a sparse file is too large for stat(2)".into());
    }
    input.skip(stored)?;
    Ok(Body::File { size, data: Data::Sparse(hunks) })
}
