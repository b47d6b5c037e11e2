//! Cuts an archive into chunks so that a change in one file changes few of them.
//!
//! What it reads of an archive's headers decides where it is cut and nothing else: an archive that is none, or a hostile one,
//! is cut worse and comes back byte for byte all the same. The data of a large file are cut by their content alone (FastCDC
//! 2020), from the file's begin to its end. Small files are put together with their headers, whole, and where one group ends
//! and the next begins follows from the files' paths, not from what is in them: a changed file changes its own group, also
//! when its length changes.

use crate::keys::{Keys, lot};
use crate::{CHUNK_BYTES_AVERAGE, CHUNK_BYTES_MAX, CHUNK_BYTES_MIN};
use bytes::{Bytes, BytesMut};
use fastcdc::v2020::{Normalization, cut_gear, get_gear_with_seed, select_masks};
use std::borrow::Cow;

const BLOCK_BYTES: usize = 512;
/// A file of this length, or a header that is longer than any should be, is cut on its own.
const LARGE_BYTES: u64 = 64 << 10;
/// A group of small files is not ended below this and always above that; in between, one path in so many ends it.
const GROUP_BYTES_MIN: usize = 8 << 10;
const GROUP_BYTES_MAX: usize = 128 << 10;
const GROUP_PATHS: u32 = 4;
/// Bytes of an extended header that is looked into.
const EXTENDED_BYTES_MAX: u64 = 16 << 10;

/// Cuts one archive.
pub(crate) struct Cutter {
    /// What was not given out.
    buffer: BytesMut,
    /// How far of that was looked at.
    looked: usize,
    /// Where the entry that is being looked at begins.
    entry: usize,
    /// Its path, as far as an extended header said it.
    path: Option<Vec<u8>>,
    phase: Phase,
    gear: Gear,
    key: [u8; 32],
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// A header is next.
    Header,
    /// Data of a small file are next.
    Small { left: u64 },
    /// What stands in the buffer, and `left` bytes from its begin on, is cut by content.
    Large { left: u64 },
}

struct Gear {
    table: Cow<'static, [u64]>,
    shifted: Cow<'static, [u64]>,
    strict: u64,
    relaxed: u64,
}

impl Gear {
    fn new(key: &[u8; 32]) -> Self {
        let seed = u64::from(lot(key, &[b"gear low"])) | u64::from(lot(key, &[b"gear high"])) << 32;
        let (table, shifted) = get_gear_with_seed(seed);
        let (strict, relaxed) = select_masks(CHUNK_BYTES_AVERAGE, Normalization::Level1);
        Self { table, shifted, strict, relaxed }
    }

    /// How long the chunk is that the window begins with.
    fn cut(&self, window: &[u8]) -> usize {
        let (_, length) = cut_gear(
            window,
            CHUNK_BYTES_MIN,
            CHUNK_BYTES_AVERAGE,
            CHUNK_BYTES_MAX,
            self.strict,
            self.relaxed,
            self.strict << 1,
            self.relaxed << 1,
            &self.table,
            &self.shifted,
        );
        length.clamp(1, window.len())
    }
}

impl Cutter {
    pub(crate) fn new(keys: &Keys) -> Self {
        let (buffer, phase, gear) = (BytesMut::new(), Phase::Header, Gear::new(keys.cut()));
        Self { buffer, looked: 0, entry: 0, path: None, phase, gear, key: *keys.cut() }
    }

    /// Takes a piece of the archive; gives the chunks that ended.
    pub(crate) fn take(&mut self, piece: &[u8], chunks: &mut Vec<Bytes>) {
        self.buffer.extend_from_slice(piece);
        loop {
            let goes_on = match self.phase {
                Phase::Header => self.header(chunks),
                Phase::Small { left } => self.small(left),
                Phase::Large { left } => self.large(left, chunks),
            };
            if !goes_on {
                return;
            }
        }
    }

    /// Gives the last chunks.
    pub(crate) fn finish(mut self, chunks: &mut Vec<Bytes>) {
        while !self.buffer.is_empty() {
            let length = self.gear.cut(&self.buffer);
            chunks.push(self.buffer.split_to(length).freeze());
        }
    }

    fn small(&mut self, left: u64) -> bool {
        let there = self.buffer.len() - self.looked;
        let taken = usize::try_from(left).unwrap_or(usize::MAX).min(there);
        self.looked += taken;
        let left = left - taken as u64;
        self.phase = if left == 0 { Phase::Header } else { Phase::Small { left } };
        left == 0
    }

    fn large(&mut self, left: u64, chunks: &mut Vec<Bytes>) -> bool {
        let window = usize::try_from(left).unwrap_or(usize::MAX).min(CHUNK_BYTES_MAX);
        if self.buffer.len() < window {
            return false;
        }
        let length = self.gear.cut(&self.buffer[..window]);
        chunks.push(self.buffer.split_to(length).freeze());
        let left = left - length as u64;
        (self.looked, self.entry) = (0, 0);
        self.phase = if left == 0 { Phase::Header } else { Phase::Large { left } };
        true
    }

    /// Looks at a header; `false`: not enough of it is there.
    fn header(&mut self, chunks: &mut Vec<Bytes>) -> bool {
        let Some(block) = self.buffer[self.looked..].first_chunk::<BLOCK_BYTES>() else { return false };
        let Some((flag, size)) = kind_of(block) else {
            // The end, or no archive: all the rest is cut by content.
            self.phase = Phase::Large { left: u64::MAX };
            return true;
        };
        let data_bytes = size.next_multiple_of(BLOCK_BYTES as u64);
        if flag == b'x' && size <= EXTENDED_BYTES_MAX {
            let end = self.looked + BLOCK_BYTES + usize::try_from(data_bytes).unwrap_or(usize::MAX);
            let Some(text) = self.buffer.get(self.looked + BLOCK_BYTES..end) else { return false };
            self.path = path_of(text).map(<[u8]>::to_vec);
            self.looked = end;
            return true;
        }
        let lot = match &self.path {
            Some(path) => lot(&self.key, &[b"path", path]),
            None => lot(&self.key, &[b"path", name_of(block)]),
        };
        let ends = self.entry >= GROUP_BYTES_MAX || (self.entry >= GROUP_BYTES_MIN && lot.is_multiple_of(GROUP_PATHS));
        if ends {
            chunks.push(self.buffer.split_to(self.entry).freeze());
            self.looked -= self.entry;
        }
        self.looked += BLOCK_BYTES;
        self.path = None;
        if data_bytes >= LARGE_BYTES {
            // The header goes with what is before it: the same data under another name, or with another time, are the same chunks.
            chunks.push(self.buffer.split_to(self.looked).freeze());
            (self.looked, self.entry) = (0, 0);
            self.phase = Phase::Large { left: data_bytes };
        } else {
            self.entry = self.looked + usize::try_from(data_bytes).unwrap_or(0);
            self.phase = Phase::Small { left: data_bytes };
        }
        true
    }
}

/// What kind of entry a header begins, and how many bytes follow it.
fn kind_of(block: &[u8; BLOCK_BYTES]) -> Option<(u8, u64)> {
    if &block[257..262] != b"ustar" {
        return None;
    }
    let size = std::str::from_utf8(&block[124..136]).ok()?;
    let size = u64::from_str_radix(size.trim_end_matches(['\0', ' ']), 8).ok()?;
    Some((block[156], size))
}

fn name_of(block: &[u8; BLOCK_BYTES]) -> &[u8] {
    let name = &block[..100];
    name.split(|byte| *byte == 0).next().unwrap_or(name)
}

/// The path that an extended header gives, if it gives one.
fn path_of(mut text: &[u8]) -> Option<&[u8]> {
    loop {
        let space = text.iter().take(8).position(|byte| *byte == b' ')?;
        let length: usize = std::str::from_utf8(&text[..space]).ok()?.parse().ok()?;
        let record = text.get(space + 1..length)?;
        for key in [&b"path="[..], b"GNU.sparse.name="] {
            if let Some(path) = record.strip_prefix(key) {
                return Some(path);
            }
        }
        text = &text[length..];
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;
    use stdx::Random;

    fn keys() -> Keys {
        Keys::new("default", [3; 32])
    }

    fn cut(archive: &[u8], piece_bytes: usize) -> Vec<Bytes> {
        let (mut cutter, mut chunks) = (Cutter::new(&keys()), Vec::new());
        for piece in archive.chunks(piece_bytes) {
            cutter.take(piece, &mut chunks);
        }
        cutter.finish(&mut chunks);
        chunks
    }

    /// A header as an export writes it, as far as it is looked at.
    fn header(name: &str, flag: u8, size: u64) -> Vec<u8> {
        let mut block = vec![0; BLOCK_BYTES];
        let name = &name.as_bytes()[..name.len().min(100)];
        block[..name.len()].copy_from_slice(name);
        block[124..136].copy_from_slice(format!("{size:011o}\0").as_bytes());
        block[156] = flag;
        block[257..265].copy_from_slice(b"ustar\x0000");
        block
    }

    fn file(name: &str, data: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        if name.len() > 100 {
            let rest = format!(" path={name}\n");
            let length = (rest.len() + 3).to_string() + &rest;
            out.extend(header("pax_header", b'x', length.len() as u64));
            out.extend(length.as_bytes());
            out.resize(out.len().next_multiple_of(BLOCK_BYTES), 0);
        }
        out.extend(header(name, b'0', data.len() as u64));
        out.extend(data);
        out.resize(out.len().next_multiple_of(BLOCK_BYTES), 0);
        out
    }

    fn noise(seed: u64, bytes: usize) -> Vec<u8> {
        let random = Random::seeded(seed);
        let mut out: Vec<u8> = (0..bytes.div_ceil(64)).flat_map(|_| random.bytes::<64>()).collect();
        out.truncate(bytes);
        out
    }

    /// Chunks of `after` that `before` does not have.
    fn new_bytes(before: &[u8], after: &[u8]) -> usize {
        let known: HashSet<_> = cut(before, 65_536).into_iter().collect();
        cut(after, 65_536).into_iter().filter(|chunk| !known.contains(chunk)).map(|chunk| chunk.len()).sum()
    }

    fn tree(files: impl Iterator<Item = (String, Vec<u8>)>) -> Vec<u8> {
        let mut out: Vec<u8> = files.flat_map(|(name, data)| file(&name, &data)).collect();
        out.resize(out.len() + 2 * BLOCK_BYTES, 0);
        out
    }

    #[test]
    fn what_is_cut_is_whole_and_within_its_bounds_however_it_comes() {
        let long = "d/".repeat(80);
        let small = |n: u64| (format!("{long}{n}"), noise(n, usize::try_from(n * 37 % 9_000).unwrap()));
        let mut hostile = file("x", &[1; 100]);
        hostile.extend(header("endless", b'0', 0o777_7777_7777));
        hostile.extend(noise(3, 700_000));
        let mut giant = header("pax_header", b'x', 1 << 30);
        giant.extend(noise(4, 300_000));
        for (name, archive) in [
            ("empty", Vec::new()),
            ("one byte", vec![1]),
            ("no archive", noise(1, 1_000_000)),
            ("zeros", vec![0; 3_000_000]),
            ("small files", tree((0..800).map(small))),
            ("a large file", tree([("big".to_owned(), noise(2, 2_000_000))].into_iter())),
            ("a size that is not there", hostile),
            ("a giant header", giant),
            ("cut within a header", tree((0..3).map(small))[..700].to_vec()),
        ] {
            let chunks = cut(&archive, 65_536);
            assert_eq!(chunks.concat(), archive, "{name}");
            assert!(chunks.iter().all(|chunk| !chunk.is_empty() && chunk.len() <= CHUNK_BYTES_MAX), "{name}");
            for piece_bytes in [1_000, 513, 1 << 20] {
                assert_eq!(cut(&archive, piece_bytes), chunks, "{name} in pieces of {piece_bytes}");
            }
        }
    }

    /// The chunks of `before` that `after` does not have.
    fn gone(before: &[u8], after: &[u8]) -> Vec<Bytes> {
        let kept: HashSet<_> = cut(after, 65_536).into_iter().collect();
        cut(before, 65_536).into_iter().filter(|chunk| !kept.contains(chunk)).collect()
    }

    #[test]
    fn a_changed_file_leaves_its_neighbours_alone() {
        let name = |n: u64| format!("src/{}/{n}.rs", n % 30);
        let holds = |chunk: &[u8], text: &str| chunk.windows(text.len()).any(|window| window == text.as_bytes());
        let file = |n: u64| (name(n), noise(n, 4_000));
        let before = tree((0..500).map(file));
        for changed in [7, 250, 251, 498] {
            for (what, data) in [("changed", noise(9, 4_000)), ("longer", noise(9, 7_000)), ("empty", Vec::new())] {
                let after = tree((0..500).map(|n| if n == changed { (name(n), data.clone()) } else { file(n) }));
                let gone = gone(&before, &after);
                // Its own group and, when that ends elsewhere for its length, the next one: half a dozen files each.
                let most = if what == "changed" { 1 } else { 2 };
                assert!((1..=most).contains(&gone.len()), "{what}: {} groups", gone.len());
                assert!(holds(&gone[0], &name(changed)), "{what}: not its own");
                let stored = new_bytes(&before, &after);
                assert!((data.len()..64 << 10).contains(&stored), "{what}: {stored}");
            }
            let added = [("src/one/more.rs".to_owned(), noise(8, 4_000))];
            let one_more = (0..changed).map(file).chain(added).chain((changed..500).map(file));
            assert!(gone(&before, &tree(one_more)).len() <= 1, "one more before {changed}");
        }
    }

    #[test]
    fn a_large_file_is_cut_on_its_own() {
        let big = noise(1, 3_000_000);
        let with = |small: &[u8], big: &[u8]| {
            let files = [("a", small), ("big", big), ("c", small)];
            tree(files.into_iter().map(|(name, data)| (name.to_owned(), data.to_vec())))
        };
        let before = with(&[1; 100], &big);
        assert!(new_bytes(&before, &with(&[2; 5_000], &big)) < 20_000, "its neighbours moved it");
        let shifted = [&b"one line more\n"[..], &big].concat();
        assert!(new_bytes(&before, &with(&[1; 100], &shifted)) < 2 * CHUNK_BYTES_MAX + 4_096, "a line moved it");
    }
}
