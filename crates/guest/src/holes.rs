//! Where the data of a file with holes stands: found by its content alone, so that one content gives one map however its
//! blocks came to lie, and as GNU tar writes it.

use crate::tar::{self, BLOCK_BYTES, Broken};
use rustix::fs::SeekFrom;
use rustix::io::Errno;
use sandbox::Rule;
use std::io::Read;
use std::os::fd::BorrowedFd;

/// A hole is at least one whole part of this length, aligned.
const PART_BYTES: u64 = 32 << 10;
/// Segments of one file at most.
const SEGMENTS_MAX: usize = 1 << 18;
/// Digits of one number of a map at most, with its end.
const NUMBER_BYTES_MAX: usize = 21;

/// A stretch of data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Segment {
    pub(crate) at: u64,
    pub(crate) bytes: u64,
}

/// The segments of a file that is so long; `None` when no whole part of it is empty.
pub(crate) fn map(file: BorrowedFd<'_>, bytes: u64) -> Result<Option<Vec<Segment>>, Errno> {
    if bytes < PART_BYTES {
        return Ok(None);
    }
    let (mut segments, mut hole) = (Vec::<Segment>::new(), false);
    let (mut at, mut data_end) = (0, 0);
    let mut buffer = vec![0; usize::try_from(PART_BYTES).unwrap_or(0)];
    while at < bytes {
        if at >= data_end {
            let data = match rustix::fs::seek(file, SeekFrom::Data(at)) {
                Ok(data) if data < bytes => data,
                Ok(_) | Err(Errno::NXIO) => {
                    hole |= bytes - at >= PART_BYTES;
                    break;
                }
                Err(errno) => return Err(errno),
            };
            hole |= data - at >= PART_BYTES;
            at = data / PART_BYTES * PART_BYTES;
            data_end = rustix::fs::seek(file, SeekFrom::Hole(data))?;
        }
        let length = PART_BYTES.min(bytes - at);
        let part = &mut buffer[..usize::try_from(length).unwrap_or(0)];
        read(file, part, at)?;
        if is_empty(part) {
            hole |= length == PART_BYTES;
        } else {
            let joins = segments.last_mut().filter(|last| last.at + last.bytes == at);
            match joins {
                Some(last) => last.bytes += length,
                None => segments.push(Segment { at, bytes: length }),
            }
            if segments.len() > SEGMENTS_MAX {
                return Err(Errno::FBIG);
            }
        }
        at += length;
    }
    // An empty rest without a hole stands as data, as in any short file.
    Ok(hole.then_some(segments))
}

fn read(file: BorrowedFd<'_>, part: &mut [u8], at: u64) -> Result<(), Errno> {
    let mut filled = 0;
    while filled < part.len() {
        match rustix::io::pread(file, &mut part[filled..], at + filled as u64) {
            // It became shorter; whoever reads it next sees that.
            Ok(0) => {
                part[filled..].fill(0);
                return Ok(());
            }
            Ok(length) => filled += length,
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

fn is_empty(part: &[u8]) -> bool {
    part.chunks(64).all(|chunk| chunk.iter().fold(0, |all, byte| all | byte) == 0)
}

/// The map before the data: how many segments, then where each begins and how long it is, filled up to whole blocks. A last
/// segment of no length says where the file ends.
pub(crate) fn to_text(segments: &[Segment], bytes: u64) -> Vec<u8> {
    let ends = segments.last().is_some_and(|last| last.at + last.bytes == bytes);
    let end = (!ends).then_some(Segment { at: bytes, bytes: 0 });
    let mut text = format!("{}\n", segments.len() + usize::from(!ends)).into_bytes();
    for Segment { at, bytes } in segments.iter().copied().chain(end) {
        text.extend_from_slice(format!("{at}\n{bytes}\n").as_bytes());
    }
    text.resize(text.len() + tar::padding(text.len() as u64), 0);
    text
}

/// Reads a map of a file that is `bytes` long and takes `stored` in the archive: in order, within the file, and with just as
/// much data as follows.
pub(crate) fn from_text(source: &mut impl Read, bytes: u64, stored: u64) -> Result<Vec<Segment>, Broken> {
    let mut text = Text { source, block: [0; BLOCK_BYTES], at: BLOCK_BYTES, left: stored };
    let count = usize::try_from(text.number()?).unwrap_or(usize::MAX);
    if count > SEGMENTS_MAX + 1 {
        return Err(Rule::Malformed.into());
    }
    let (mut segments, mut end) = (Vec::new(), 0);
    for _ in 0..count {
        let segment = Segment { at: text.number()?, bytes: text.number()? };
        let next = segment.at.checked_add(segment.bytes).filter(|next| *next <= bytes && segment.at >= end);
        end = next.ok_or(Rule::Malformed)?;
        if segment.bytes > 0 {
            segments.push(segment);
        }
    }
    let data: u64 = segments.iter().map(|segment| segment.bytes).sum();
    let rest_is_empty = text.block[text.at..].iter().all(|byte| *byte == 0);
    if data == text.left && rest_is_empty { Ok(segments) } else { Err(Rule::Malformed.into()) }
}

struct Text<'a, R> {
    source: &'a mut R,
    block: [u8; BLOCK_BYTES],
    at: usize,
    left: u64,
}

impl<R: Read> Text<'_, R> {
    fn byte(&mut self) -> Result<u8, Broken> {
        if self.at == BLOCK_BYTES {
            self.left = self.left.checked_sub(BLOCK_BYTES as u64).ok_or(Rule::Malformed)?;
            tar::fill(self.source, &mut self.block)?;
            self.at = 0;
        }
        self.at += 1;
        Ok(self.block[self.at - 1])
    }

    fn number(&mut self) -> Result<u64, Broken> {
        let mut digits = Vec::new();
        while digits.len() < NUMBER_BYTES_MAX {
            match self.byte()? {
                b'\n' => return tar::number(&digits).ok_or(Broken::Rule(Rule::Malformed)),
                digit => digits.push(digit),
            }
        }
        Err(Rule::Malformed.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn segments(pairs: &[(u64, u64)]) -> Vec<Segment> {
        pairs.iter().map(|(at, bytes)| Segment { at: *at, bytes: *bytes }).collect()
    }

    #[test]
    fn a_map_is_read_as_written() {
        for (pairs, bytes) in [
            (vec![], 1 << 40),
            (vec![(0, 5)], 100_000),
            (vec![(65_536, 65_536)], 131_072),
            ((0..200).map(|number| (number * 100_000, 32_768)).collect(), 1 << 30),
        ] {
            let wanted = segments(&pairs);
            let text = to_text(&wanted, bytes);
            let stored = text.len() as u64 + wanted.iter().map(|segment| segment.bytes).sum::<u64>();
            assert_eq!(from_text(&mut &text[..], bytes, stored).unwrap(), wanted);
            for lie in [stored + 1, stored - 1, 0] {
                assert!(from_text(&mut &text[..], bytes, lie).is_err(), "{pairs:?} {lie}");
            }
        }
    }

    #[test]
    fn a_map_that_lies_is_refused() {
        let rows = [
            "1\n0\n600\n",
            "2\n100\n10\n50\n10\n",
            "2\n0\n10\n5\n10\n",
            "1\n18446744073709551615\n2\n",
            "1\n-1\n10\n",
            "99999999999\n",
            "1\n0\n",
            "x\n",
            "1\n0\n10\nrest",
            "000000000000000000000001\n0\n10\n",
        ];
        for row in rows {
            let mut text = row.as_bytes().to_vec();
            text.resize(BLOCK_BYTES, 0);
            assert!(from_text(&mut &text[..], 500, BLOCK_BYTES as u64 + 10).is_err(), "{row:?}");
        }
    }

    #[test]
    fn what_is_empty_is_a_hole_however_it_was_written() {
        use std::os::fd::AsFd as _;
        use std::os::unix::fs::FileExt as _;
        let part = PART_BYTES;
        type Row<'a> = (&'a [(u64, &'a [u8])], u64, Option<Vec<Segment>>);
        let rows: [Row<'_>; 6] = [
            (&[], 10, None),
            (&[], part, Some(vec![])),
            (&[(0, b"x")], part, None),
            (&[(0, b"x")], 3 * part, Some(segments(&[(0, part)]))),
            (&[(2 * part + 7, b"x")], 3 * part - 5, Some(segments(&[(2 * part, part - 5)]))),
            (
                &[(0, b"x"), (part, b"y"), (3 * part, b"z")],
                4 * part,
                Some(segments(&[(0, 2 * part), (3 * part, part)])),
            ),
        ];
        for (writes, bytes, expected) in rows {
            for dense in [false, true] {
                let file = tempfile::tempfile().unwrap();
                if dense {
                    file.write_all_at(&vec![0; usize::try_from(bytes).unwrap()], 0).unwrap();
                }
                file.set_len(bytes).unwrap();
                for (at, text) in writes {
                    file.write_all_at(text, *at).unwrap();
                }
                assert_eq!(map(file.as_fd(), bytes).unwrap(), expected, "{writes:?} {bytes} {dense}");
            }
        }
    }
}
