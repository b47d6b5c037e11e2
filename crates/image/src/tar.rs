//! Reads tar as images have it: v7, ustar, GNU long names and POSIX pax, whoever wrote it. Only what a header says: whether a
//! path may be made is `path`'s, and what is made of it `layer`'s. A workspace's own archives have a stricter reader inside
//! the guest, which takes nothing but what its writer writes.

use sandbox::Rule;
use std::io::{self, Read};

/// Bytes of a block; everything is a multiple of it.
pub(crate) const BLOCK_BYTES: usize = 512;
/// Bytes of one extended header, or of one long name, at most.
const EXTENDED_BYTES_MAX: u64 = 1 << 20;
/// Headers before an entry that only say more of it, at most.
const EXTENSIONS_MAX: usize = 8;
/// The largest size of an entry that is taken for one.
const ENTRY_BYTES_MAX: u64 = 1 << 50;

/// One entry as its headers say; its data follows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    /// As it stands there.
    pub(crate) path: Vec<u8>,
    pub(crate) kind: Kind,
    /// Permission bits, all twelve.
    pub(crate) mode: u32,
    /// Whose it says that it is: a user and a group.
    pub(crate) owner: (u64, u64),
    /// Seconds since the Unix epoch.
    pub(crate) modified: i64,
    /// Bytes of data that follow.
    pub(crate) bytes: u64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    File,
    Directory,
    Link { to: Vec<u8> },
    Hard { to: Vec<u8> },
}

/// Why reading ends.
#[derive(Debug)]
pub(crate) enum Broken {
    Rule(Rule),
    Source(io::Error),
}

impl From<Rule> for Broken {
    fn from(rule: Rule) -> Self {
        Self::Rule(rule)
    }
}

/// Fills `buffer`; an end before that is [`Rule::Truncated`].
pub(crate) fn fill(source: &mut impl Read, buffer: &mut [u8]) -> Result<(), Broken> {
    source.read_exact(buffer).map_err(|error| match error.kind() {
        io::ErrorKind::UnexpectedEof => Broken::Rule(Rule::Truncated),
        _ => Broken::Source(error),
    })
}

/// What fills up the last block after `bytes`.
pub(crate) const fn padding(bytes: u64) -> u64 {
    (BLOCK_BYTES as u64 - bytes % BLOCK_BYTES as u64) % BLOCK_BYTES as u64
}

/// What headers before an entry say of it.
#[derive(Debug, Default)]
struct More {
    path: Option<Vec<u8>>,
    to: Option<Vec<u8>>,
    size: Option<u64>,
    user: Option<u64>,
    group: Option<u64>,
    modified: Option<i64>,
}

/// Reads the headers of the next entry; `None` at the end of the archive.
pub(crate) fn next(source: &mut impl Read) -> Result<Option<Entry>, Broken> {
    let mut more = More::default();
    for _ in 0..=EXTENSIONS_MAX {
        let mut block = [0; BLOCK_BYTES];
        fill(source, &mut block)?;
        if block == [0; BLOCK_BYTES] {
            // An end in the middle of an entry's headers is none. One empty block is enough: some writers leave it at that.
            return if more.is_empty() { Ok(None) } else { Err(Rule::Truncated.into()) };
        }
        let head = Head::read(&block)?;
        match head.flag {
            b'x' => more.take_records(&data(source, head.size)?)?,
            b'g' => refuse_global(&data(source, head.size)?)?,
            b'L' => once(&mut more.path, terminated(data(source, head.size)?))?,
            b'K' => once(&mut more.to, terminated(data(source, head.size)?))?,
            _ => return entry(head, more).map(Some).map_err(Broken::Rule),
        }
    }
    Err(Rule::Malformed.into())
}

fn once<T>(slot: &mut Option<T>, value: T) -> Result<(), Rule> {
    if slot.is_some() {
        return Err(Rule::Malformed);
    }
    *slot = Some(value);
    Ok(())
}

/// The data of a header that says more.
fn data(source: &mut impl Read, size: u64) -> Result<Vec<u8>, Broken> {
    if size > EXTENDED_BYTES_MAX {
        return Err(Rule::NameTooLong.into());
    }
    let length = usize::try_from(size).map_err(|_| Rule::Malformed)?;
    let mut text = vec![0; length + usize::try_from(padding(size)).unwrap_or(0)];
    fill(source, &mut text)?;
    text.truncate(length);
    Ok(text)
}

fn terminated(mut text: Vec<u8>) -> Vec<u8> {
    if let Some(end) = text.iter().position(|byte| *byte == 0) {
        text.truncate(end);
    }
    text
}

/// A header block, read.
struct Head {
    name: Vec<u8>,
    flag: u8,
    mode: u32,
    owner: (u64, u64),
    size: u64,
    modified: i64,
    to: Vec<u8>,
}

impl Head {
    fn read(block: &[u8; BLOCK_BYTES]) -> Result<Self, Rule> {
        let text = |at: usize, length: usize| -> Vec<u8> {
            block[at..at + length].iter().copied().take_while(|byte| *byte != 0).collect()
        };
        let sum: u32 = block
            .iter()
            .enumerate()
            .map(|(at, byte)| if (148..156).contains(&at) { 32 } else { u32::from(*byte) })
            .sum();
        if number(&block[148..156])? != u64::from(sum) {
            return Err(Rule::Malformed);
        }
        let mut name = text(0, 100);
        // Only POSIX has a prefix; GNU keeps other things there.
        if &block[257..263] == b"ustar\0" && block[345] != 0 {
            let mut whole = text(345, 155);
            whole.push(b'/');
            whole.append(&mut name);
            name = whole;
        }
        let mode = u32::try_from(number(&block[100..108])? & 0o7777).map_err(|_| Rule::Malformed)?;
        // What is no number is nobody's.
        let id = |field: &[u8]| number(field).unwrap_or(u64::MAX);
        let owner = (id(&block[108..116]), id(&block[116..124]));
        let size = number(&block[124..136])?;
        let modified = i64::try_from(number(&block[136..148]).unwrap_or(0)).unwrap_or(0);
        Ok(Self { name, flag: block[156], mode, owner, size, modified, to: text(157, 100) })
    }
}

/// A number field: octal digits, or GNU's base 256 when it does not fit. Negative ones are none.
fn number(field: &[u8]) -> Result<u64, Rule> {
    if let [first @ 0x80..=0xff, rest @ ..] = field {
        let negative_or_too_large =
            first & 0x7f != 0 || rest.len() > 8 && rest[..rest.len() - 8].iter().any(|byte| *byte != 0);
        if negative_or_too_large {
            return Err(Rule::Malformed);
        }
        return Ok(rest.iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte)));
    }
    let text = std::str::from_utf8(field).map_err(|_| Rule::Malformed)?;
    let text = text.trim_matches(['\0', ' ']);
    if text.is_empty() {
        return Ok(0);
    }
    if !text.bytes().all(|byte| (b'0'..=b'7').contains(&byte)) {
        return Err(Rule::Malformed);
    }
    u64::from_str_radix(text, 8).map_err(|_| Rule::Malformed)
}

/// A decimal number without sign.
fn decimal(text: &[u8]) -> Option<u64> {
    if text.is_empty() || !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// Calls `take` with each record of an extended header.
fn records(mut text: &[u8], mut take: impl FnMut(&[u8], &[u8]) -> Result<(), Rule>) -> Result<(), Rule> {
    while !text.is_empty() {
        let space = text.iter().take(8).position(|byte| *byte == b' ').ok_or(Rule::Malformed)?;
        let length = decimal(&text[..space]).and_then(|length| usize::try_from(length).ok());
        let length = length.filter(|length| *length > space + 1).ok_or(Rule::Malformed)?;
        let record =
            text.get(space + 1..length).and_then(|record| record.strip_suffix(b"\n")).ok_or(Rule::Malformed)?;
        let equals = record.iter().position(|byte| *byte == b'=').ok_or(Rule::Malformed)?;
        take(&record[..equals], &record[equals + 1..])?;
        text = &text[length..];
    }
    Ok(())
}

/// A header for all entries that follow may comment, and nothing else: what it set, an unpacker of another make might not see.
fn refuse_global(text: &[u8]) -> Result<(), Rule> {
    records(text, |key, _| if key == b"comment" { Ok(()) } else { Err(Rule::Malformed) })
}

impl More {
    fn is_empty(&self) -> bool {
        matches!(self, Self { path: None, to: None, size: None, user: None, group: None, modified: None })
    }

    fn take_records(&mut self, text: &[u8]) -> Result<(), Rule> {
        records(text, |key, value| match key {
            b"path" => once(&mut self.path, value.to_vec()),
            b"linkpath" => once(&mut self.to, value.to_vec()),
            b"size" => once(&mut self.size, decimal(value).ok_or(Rule::Malformed)?),
            b"uid" => once(&mut self.user, decimal(value).ok_or(Rule::Malformed)?),
            b"gid" => once(&mut self.group, decimal(value).ok_or(Rule::Malformed)?),
            b"mtime" => {
                let whole = value.split(|byte| *byte == b'.').next().unwrap_or_default();
                let seconds = std::str::from_utf8(whole).ok().and_then(|whole| whole.parse().ok());
                once(&mut self.modified, seconds.ok_or(Rule::Malformed)?)
            }
            // A file with holes says how large it claims to be apart from what is there.
            key if key.starts_with(b"GNU.sparse.") => Err(Rule::UnknownKind),
            // Other times and extended attributes are not kept.
            _ => Ok(()),
        })
    }
}

fn entry(head: Head, more: More) -> Result<Entry, Rule> {
    let path = more.path.unwrap_or(head.name);
    let to = more.to.unwrap_or(head.to);
    let size = more.size.unwrap_or(head.size);
    if size > ENTRY_BYTES_MAX {
        return Err(Rule::TooLarge);
    }
    let is_directory = path.last() == Some(&b'/');
    let (kind, bytes) = match head.flag {
        // Before POSIX a directory was a file whose name ends so.
        b'0' | b'7' | 0 if is_directory => (Kind::Directory, 0),
        b'0' | b'7' | 0 => (Kind::File, size),
        // What some writers say of a directory's size is a hint; no data follows.
        b'5' => (Kind::Directory, 0),
        b'1' if to.is_empty() => return Err(Rule::LinkMissing),
        // Some writers leave the size of the file in the header of a hard link; no data follows.
        b'1' => (Kind::Hard { to }, 0),
        b'2' if to.is_empty() => return Err(Rule::NameMalformed),
        b'2' => (Kind::Link { to }, 0),
        b'3' | b'4' | b'6' => return Err(Rule::Device),
        _ => return Err(Rule::UnknownKind),
    };
    let owner = (more.user.unwrap_or(head.owner.0), more.group.unwrap_or(head.owner.1));
    Ok(Entry { path, kind, mode: head.mode, owner, modified: more.modified.unwrap_or(head.modified), bytes })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::{self, Header};

    fn read(bytes: &[u8]) -> Result<Option<Entry>, Rule> {
        next(&mut &bytes[..]).map_err(|broken| match broken {
            Broken::Rule(rule) => rule,
            Broken::Source(error) => panic!("{error}"),
        })
    }

    fn name(bytes: &[u8]) -> Result<String, Rule> {
        read(bytes).map(|entry| String::from_utf8_lossy(&entry.unwrap().path).into_owned())
    }

    #[test]
    fn the_forms_that_writers_use_are_read() {
        let long = "d/".repeat(80) + "file";
        let plain = Header::file("a/b", 3);
        assert_eq!(name(&plain.block()).unwrap(), "a/b");
        assert_eq!(name(&[fixture::pax(&[("path", &long)]), plain.block().to_vec()].concat()).unwrap(), long);
        assert_eq!(name(&[fixture::gnu_long(b'L', &long), plain.block().to_vec()].concat()).unwrap(), long);
        assert_eq!(name(&Header { prefix: "some/where", ..Header::file("x", 0) }.block()).unwrap(), "some/where/x");
        let entry = read(
            &[fixture::pax(&[("size", "5"), ("mtime", "1700000000.25"), ("gid", "70000")]), plain.block().to_vec()]
                .concat(),
        );
        let entry = entry.unwrap().unwrap();
        assert_eq!((entry.bytes, entry.modified, entry.owner.1), (5, 1_700_000_000, 70_000));
        let with_comment = [fixture::global(&[("comment", "x")]), plain.block().to_vec()].concat();
        assert_eq!(name(&with_comment).unwrap(), "a/b");
        assert_eq!(read(&[0; 512]).unwrap(), None);
    }

    #[test]
    fn headers_that_lie_are_refused() {
        let plain = Header::file("a", 0).block().to_vec();
        let mut sum = plain.clone();
        sum[0] ^= 1;
        let rows: [(Vec<u8>, Rule); 12] = [
            (sum, Rule::Malformed),
            (plain[..300].to_vec(), Rule::Truncated),
            ([fixture::pax(&[("path", "x")]), vec![0; 512]].concat(), Rule::Truncated),
            ([fixture::pax(&[("path", "x"), ("path", "y")]), plain.clone()].concat(), Rule::Malformed),
            ([fixture::pax(&[("size", "-1")]), plain.clone()].concat(), Rule::Malformed),
            ([fixture::pax(&[("size", "18446744073709551615")]), plain.clone()].concat(), Rule::TooLarge),
            ([fixture::pax(&[("GNU.sparse.major", "1")]), plain.clone()].concat(), Rule::UnknownKind),
            ([fixture::global(&[("path", "x")]), plain.clone()].concat(), Rule::Malformed),
            ([fixture::gnu_long(b'L', "x").repeat(9), plain].concat(), Rule::Malformed),
            (Header { flag: b'S', ..Header::file("a", 0) }.block().to_vec(), Rule::UnknownKind),
            (Header { flag: b'3', ..Header::file("a", 0) }.block().to_vec(), Rule::Device),
            (Header { flag: b'6', ..Header::file("a", 0) }.block().to_vec(), Rule::Device),
        ];
        for (index, (bytes, rule)) in rows.into_iter().enumerate() {
            assert_eq!(read(&bytes).unwrap_err(), rule, "row {index}");
        }
    }

    #[test]
    fn numbers_are_octal_or_binary() {
        assert_eq!(number(b"0000644\0"), Ok(0o644));
        assert_eq!(number(b"\0\0\0"), Ok(0));
        assert_eq!(number(&[0x80, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0]), Ok(0x2_0000_0000));
        assert_eq!(number(&[0xff; 12]), Err(Rule::Malformed));
        assert_eq!(number(&[0x80, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]), Err(Rule::Malformed));
        assert_eq!(number(b"0000899\0"), Err(Rule::Malformed));
        assert_eq!(number(b"+000001\0"), Err(Rule::Malformed));
    }
}
