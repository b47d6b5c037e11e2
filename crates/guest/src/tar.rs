//! The form of an archive: headers as bytes and back, and which names pass. POSIX pax, with sparse files as GNU tar writes
//! them (1.0), so that any tar reads it; what is read back is held to exactly the part that is written here. No files.

use sandbox::Rule;
use std::ffi::CString;
use std::io::{self, Read};

/// Bytes of a block; everything is a multiple of it.
pub(crate) const BLOCK_BYTES: usize = 512;
/// How many blocks of zeros end an archive.
pub(crate) const END_BLOCKS: usize = 2;
/// Components of a path at most.
pub(crate) const DEPTH_MAX: usize = 512;
/// Bytes of a path, or of what a link says, at most (`PATH_MAX` without its end).
pub(crate) const PATH_BYTES_MAX: usize = 4_095;
const COMPONENT_BYTES_MAX: usize = 255;
/// Bytes of the extended header of one entry at most: two paths, and a few numbers.
const EXTENDED_BYTES_MAX: u64 = 16 << 10;
/// Bytes that a header's own fields hold.
const NAME_BYTES: usize = 100;
/// The largest size that the header's own field holds.
const SIZE_MAX: u64 = 0o777_7777_7777;
const SPARSE_NAME: &[u8] = b"GNUSparseFile.0";

/// One entry of an archive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    /// As it stands in the archive, without a slash at its end; the workspace itself is `.`.
    pub(crate) path: Vec<u8>,
    pub(crate) kind: Kind,
    /// Permission bits.
    pub(crate) mode: u32,
    /// User and group as they stand in archives.
    pub(crate) owner: (u32, u32),
    pub(crate) modified: Modified,
}

/// Users and groups of archives at most: the ids that a sandbox may have.
const ID_MAX: u64 = 65_535;
/// Who owns everything where there is one user.
const ONE: (u32, u32) = (crate::USER_ID, crate::USER_ID);

/// Whose files an archive is of and made into.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Owners {
    /// There is one user inside: what belonged to others becomes that one's.
    One,
    /// Each file keeps its owner, by number. The sandbox's own user has the same number in every archive, whatever it has inside.
    Many {
        /// That user and its group.
        own: (u32, u32),
    },
}

impl Owners {
    /// What stands in an archive for an owner inside, and the other way round.
    pub(crate) fn turned(self, (user, group): (u32, u32)) -> (u32, u32) {
        let turn = |id: u32, own: u32| match id {
            id if id == own => crate::USER_ID,
            crate::USER_ID => own,
            id => id,
        };
        match self {
            Self::One => ONE,
            Self::Many { own } => (turn(user, own.0), turn(group, own.1)),
        }
    }
}

/// A time since the Unix epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Modified {
    pub(crate) seconds: i64,
    pub(crate) nanoseconds: u32,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Directory,
    /// A regular file; so many bytes follow.
    File {
        bytes: u64,
    },
    /// A regular file with holes; a map and the data between the holes follow.
    Sparse {
        bytes: u64,
        stored: u64,
    },
    Link {
        to: Vec<u8>,
    },
    /// Another name of a file that came before.
    Hard {
        to: Vec<u8>,
    },
}

impl Kind {
    /// Bytes that follow the headers, without what fills up the last block.
    pub(crate) const fn stored(&self) -> u64 {
        match self {
            Self::File { bytes } => *bytes,
            Self::Sparse { stored, .. } => *stored,
            Self::Directory | Self::Link { .. } | Self::Hard { .. } => 0,
        }
    }

    const fn flag(&self) -> u8 {
        match self {
            Self::File { .. } | Self::Sparse { .. } => b'0',
            Self::Hard { .. } => b'1',
            Self::Link { .. } => b'2',
            Self::Directory => b'5',
        }
    }
}

/// What fills up the last block after `bytes`.
pub(crate) const fn padding(bytes: u64) -> usize {
    let rest = bytes % BLOCK_BYTES as u64;
    #[expect(clippy::cast_possible_truncation, reason = "below the size of a block")]
    if rest == 0 { 0 } else { BLOCK_BYTES - rest as usize }
}

impl Entry {
    /// The headers of the entry.
    pub(crate) fn headers(&self) -> Vec<u8> {
        let mut path = self.path.clone();
        if self.kind == Kind::Directory {
            path.push(b'/');
        }
        let (mut extended, mut raw) = (Vec::new(), false);
        let mut long = |key: &str, value: &[u8]| {
            record(&mut extended, key, value);
            raw |= std::str::from_utf8(value).is_err();
        };
        let mut name: &[u8] = &path;
        if let Kind::Sparse { bytes, .. } = &self.kind {
            long("GNU.sparse.major", b"1");
            long("GNU.sparse.minor", b"0");
            long("GNU.sparse.name", &path);
            long("GNU.sparse.realsize", bytes.to_string().as_bytes());
            name = SPARSE_NAME;
        } else if path.len() > NAME_BYTES {
            long("path", &path);
        }
        let to: &[u8] = match &self.kind {
            Kind::Link { to } | Kind::Hard { to } => to,
            Kind::Directory | Kind::File { .. } | Kind::Sparse { .. } => b"",
        };
        if to.len() > NAME_BYTES {
            long("linkpath", to);
        }
        let Modified { seconds, nanoseconds } = self.modified;
        if nanoseconds != 0 || u64::try_from(seconds).map_or(true, |seconds| seconds > SIZE_MAX) {
            long("mtime", time_text(self.modified).as_bytes());
        }
        let stored = self.kind.stored();
        if stored > SIZE_MAX {
            long("size", stored.to_string().as_bytes());
        }
        if raw {
            let mut first = Vec::new();
            record(&mut first, "hdrcharset", b"BINARY");
            first.append(&mut extended);
            extended = first;
        }
        let mut out = Vec::new();
        if !extended.is_empty() {
            let size = extended.len() as u64;
            out.extend_from_slice(&header(b"pax_header", b'x', 0o644, size, 0, b"", ONE));
            out.extend_from_slice(&extended);
            out.resize(out.len() + padding(size), 0);
        }
        let seconds = u64::try_from(seconds).unwrap_or(0).min(SIZE_MAX);
        let stored = stored.min(SIZE_MAX);
        out.extend_from_slice(&header(name, self.kind.flag(), self.mode, stored, seconds, to, self.owner));
        out
    }
}

/// An extended record: its own length, key, value.
fn record(out: &mut Vec<u8>, key: &str, value: &[u8]) {
    let rest = key.len() + value.len() + 3;
    let mut length = rest + 1;
    while length != rest + length.to_string().len() {
        length = rest + length.to_string().len();
    }
    out.extend_from_slice(format!("{length} {key}=").as_bytes());
    out.extend_from_slice(value);
    out.push(b'\n');
}

/// Seconds with a fraction of nine digits. A time before the epoch counts its fraction away from zero, as pax does.
fn time_text(time: Modified) -> String {
    let total = i128::from(time.seconds) * 1_000_000_000 + i128::from(time.nanoseconds);
    let sign = if total < 0 { "-" } else { "" };
    let total = total.unsigned_abs();
    format!("{sign}{}.{:09}", total / 1_000_000_000, total % 1_000_000_000)
}

fn time_of(text: &[u8]) -> Option<Modified> {
    let text = std::str::from_utf8(text).ok()?;
    let (negative, text) = text.strip_prefix('-').map_or((false, text), |text| (true, text));
    let (seconds, fraction) = text.split_once('.')?;
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if !digits(seconds) || !digits(fraction) || fraction.len() != 9 {
        return None;
    }
    let total = i128::from(seconds.parse::<u64>().ok()?) * 1_000_000_000 + i128::from(fraction.parse::<u32>().ok()?);
    let total = if negative { -total } else { total };
    Some(Modified {
        seconds: i64::try_from(total.div_euclid(1_000_000_000)).ok()?,
        nanoseconds: u32::try_from(total.rem_euclid(1_000_000_000)).ok()?,
    })
}

/// A header block. Fields too long for it stand in the extended header before it.
fn header(
    name: &[u8],
    flag: u8,
    mode: u32,
    size: u64,
    seconds: u64,
    to: &[u8],
    (user, group): (u32, u32),
) -> [u8; BLOCK_BYTES] {
    let mut block = [0; BLOCK_BYTES];
    let mut put = |at: usize, room: usize, value: &[u8]| {
        let length = value.len().min(room);
        block[at..at + length].copy_from_slice(&value[..length]);
    };
    put(0, NAME_BYTES, name);
    put(100, 8, format!("{mode:07o}\0").as_bytes());
    put(108, 8, format!("{user:07o}\0").as_bytes());
    put(116, 8, format!("{group:07o}\0").as_bytes());
    put(124, 12, format!("{size:011o}\0").as_bytes());
    put(136, 12, format!("{seconds:011o}\0").as_bytes());
    put(156, 1, &[flag]);
    put(157, NAME_BYTES, to);
    put(257, 8, b"ustar\x0000");
    for (at, id) in [(265, user), (297, group)] {
        // Others have the names that their sandbox gives them.
        let name = if id == crate::USER_ID { crate::USER_NAME } else { "" };
        put(at, 32, name.as_bytes());
    }
    let sum = checksum(&block);
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    block
}

/// The sum of a block's bytes, the sum's own field counted as spaces.
fn checksum(block: &[u8; BLOCK_BYTES]) -> u32 {
    let field = 148..156;
    block.iter().enumerate().map(|(at, byte)| if field.contains(&at) { 32 } else { u32::from(*byte) }).sum()
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

/// What an extended header says.
#[derive(Debug, Default)]
struct Extended {
    path: Option<Vec<u8>>,
    to: Option<Vec<u8>>,
    modified: Option<Modified>,
    size: Option<u64>,
    sparse_name: Option<Vec<u8>>,
    sparse_bytes: Option<u64>,
    /// That they name the one version that is written here.
    sparse_major: Option<()>,
    sparse_minor: Option<()>,
}

/// Reads the headers of the next entry; `None` at the end of the archive.
pub(crate) fn next(source: &mut impl Read) -> Result<Option<Entry>, Broken> {
    let mut block = [0; BLOCK_BYTES];
    fill(source, &mut block)?;
    if block == [0; BLOCK_BYTES] {
        for _ in 1..END_BLOCKS {
            fill(source, &mut block)?;
            if block != [0; BLOCK_BYTES] {
                return Err(Rule::Malformed.into());
            }
        }
        return Ok(None);
    }
    let mut head = Head::from_block(&block)?;
    let mut extended = Extended::default();
    if head.flag == b'x' {
        if head.size > EXTENDED_BYTES_MAX {
            return Err(Rule::Malformed.into());
        }
        let mut text = vec![0; usize::try_from(head.size).unwrap_or(0) + padding(head.size)];
        fill(source, &mut text)?;
        text.truncate(usize::try_from(head.size).unwrap_or(0));
        extended = Extended::from_text(&text)?;
        fill(source, &mut block)?;
        head = Head::from_block(&block)?;
    }
    entry(head, extended).map(Some).map_err(Broken::Rule)
}

/// A header block, read.
struct Head {
    name: Vec<u8>,
    flag: u8,
    mode: u32,
    owner: (u32, u32),
    size: u64,
    seconds: u64,
    to: Vec<u8>,
}

impl Head {
    fn from_block(block: &[u8; BLOCK_BYTES]) -> Result<Self, Rule> {
        let octal = |at: usize, length: usize| -> Result<u64, Rule> {
            let field = std::str::from_utf8(&block[at..at + length]).map_err(|_| Rule::Malformed)?;
            u64::from_str_radix(field.trim_end_matches(['\0', ' ']), 8).map_err(|_| Rule::Malformed)
        };
        let text = |at: usize, length: usize| -> Vec<u8> {
            block[at..at + length].iter().copied().take_while(|byte| *byte != 0).collect()
        };
        let ours = &block[257..265] == b"ustar\x0000" && block[345..].iter().all(|byte| *byte == 0);
        if !ours || octal(148, 8)? != u64::from(checksum(block)) {
            return Err(Rule::Malformed);
        }
        let mode = u32::try_from(octal(100, 8)?).ok().filter(|mode| *mode <= 0o7777).ok_or(Rule::Malformed)?;
        let id = |at: usize| -> Result<u32, Rule> {
            let id = octal(at, 8)?;
            u32::try_from(id).ok().filter(|_| id <= ID_MAX).ok_or(Rule::Malformed)
        };
        Ok(Self {
            name: text(0, NAME_BYTES),
            flag: block[156],
            mode,
            owner: (id(108)?, id(116)?),
            size: octal(124, 12)?,
            seconds: octal(136, 12)?,
            to: text(157, NAME_BYTES),
        })
    }
}

impl Extended {
    fn from_text(mut text: &[u8]) -> Result<Self, Rule> {
        let mut found = Self::default();
        while !text.is_empty() {
            let space = text.iter().take(8).position(|byte| *byte == b' ').ok_or(Rule::Malformed)?;
            let length = number(&text[..space]).and_then(|length| usize::try_from(length).ok());
            let length = length.filter(|length| *length > space + 1).ok_or(Rule::Malformed)?;
            let record = text.get(space + 1..length).and_then(|record| record.strip_suffix(b"\n"));
            let record = record.ok_or(Rule::Malformed)?;
            let equals = record.iter().position(|byte| *byte == b'=').ok_or(Rule::Malformed)?;
            found.take(&record[..equals], &record[equals + 1..])?;
            text = &text[length..];
        }
        Ok(found)
    }

    fn take(&mut self, key: &[u8], value: &[u8]) -> Result<(), Rule> {
        fn once<T>(slot: &mut Option<T>, value: Option<T>) -> Result<(), Rule> {
            match (slot.is_none(), value) {
                (true, Some(value)) => *slot = Some(value),
                _ => return Err(Rule::Malformed),
            }
            Ok(())
        }
        match key {
            b"path" => once(&mut self.path, Some(value.to_vec())),
            b"linkpath" => once(&mut self.to, Some(value.to_vec())),
            b"mtime" => once(&mut self.modified, time_of(value)),
            b"size" => once(&mut self.size, number(value)),
            b"GNU.sparse.name" => once(&mut self.sparse_name, Some(value.to_vec())),
            b"GNU.sparse.realsize" => once(&mut self.sparse_bytes, number(value)),
            b"GNU.sparse.major" if value == b"1" => once(&mut self.sparse_major, Some(())),
            b"GNU.sparse.minor" if value == b"0" => once(&mut self.sparse_minor, Some(())),
            b"hdrcharset" if value == b"BINARY" => Ok(()),
            _ => Err(Rule::Malformed),
        }
    }
}

/// A decimal number without sign.
pub(crate) fn number(text: &[u8]) -> Option<u64> {
    if text.is_empty() || !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(text).ok()?.parse().ok()
}

fn entry(head: Head, extended: Extended) -> Result<Entry, Rule> {
    let size = extended.size.unwrap_or(head.size);
    let to = extended.to.unwrap_or(head.to);
    let version = (extended.sparse_major, extended.sparse_minor);
    let sparse = match (version, extended.sparse_bytes, extended.sparse_name) {
        ((None, None), None, None) => None,
        ((Some(()), Some(())), Some(bytes), Some(name)) => Some((bytes, name)),
        _ => return Err(Rule::Malformed),
    };
    let mut path = extended.path.unwrap_or(head.name);
    let kind = match (head.flag, sparse) {
        (b'0', Some((bytes, name))) => {
            path = name;
            Kind::Sparse { bytes, stored: size }
        }
        (_, Some(_)) => return Err(Rule::Malformed),
        (b'0', None) => Kind::File { bytes: size },
        (b'5', None) => {
            if path.pop() != Some(b'/') {
                return Err(Rule::Malformed);
            }
            Kind::Directory
        }
        (b'2', None) => Kind::Link { to },
        (b'1', None) => Kind::Hard { to },
        (b'3' | b'4' | b'6', None) => return Err(Rule::Device),
        _ => return Err(Rule::UnknownKind),
    };
    if kind.stored() == 0 && size != 0 {
        return Err(Rule::Malformed);
    }
    let seconds = i64::try_from(head.seconds).map_err(|_| Rule::Malformed)?;
    let modified = extended.modified.unwrap_or(Modified { seconds, nanoseconds: 0 });
    Ok(Entry { path, kind, mode: head.mode, owner: head.owner, modified })
}

/// The components of a path that passes; none for the workspace itself.
pub(crate) fn components(path: &[u8]) -> Result<Vec<CString>, Rule> {
    match path {
        b"" => return Err(Rule::NameMalformed),
        b"." => return Ok(Vec::new()),
        [b'/', ..] => return Err(Rule::Absolute),
        path if path.len() > PATH_BYTES_MAX => return Err(Rule::NameTooLong),
        _ => {}
    }
    let mut components = Vec::new();
    for component in path.split(|byte| *byte == b'/') {
        match component {
            b".." => return Err(Rule::Climbs),
            b"" | b"." => return Err(Rule::NameMalformed),
            component if component.len() > COMPONENT_BYTES_MAX => return Err(Rule::NameTooLong),
            component => components.push(CString::new(component).map_err(|_| Rule::NameMalformed)?),
        }
    }
    if components.len() > DEPTH_MAX { Err(Rule::NameTooLong) } else { Ok(components) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round(entry: &Entry) -> Entry {
        let bytes = entry.headers();
        assert_eq!(bytes.len() % BLOCK_BYTES, 0);
        let mut source = &bytes[..];
        let read = next(&mut source).unwrap().unwrap();
        assert!(source.is_empty(), "nothing is left of the headers");
        read
    }

    #[test]
    fn headers_are_read_as_written() {
        let long = vec![b'x'; 300];
        let times = [(0, 0), (1_700_000_000, 123_456_789), (-1, 500_000_000), (1, 1), (i64::from(u32::MAX) * 1_000, 0)];
        let paths: [&[u8]; 7] = [b".", b"a", b"a/b\nc", &[b'x'; 100], &[b'x'; 101], &long, b"\xff\xfe/\xc3\x28"];
        let kinds = [
            Kind::Directory,
            Kind::File { bytes: 0 },
            Kind::File { bytes: 1 << 40 },
            Kind::Sparse { bytes: 1 << 50, stored: 1_024 },
            Kind::Link { to: b"/etc/passwd".to_vec() },
            Kind::Link { to: long.clone() },
            Kind::Hard { to: b"a\xff".to_vec() },
        ];
        for (seconds, nanoseconds) in times {
            for path in paths {
                for kind in &kinds {
                    let modified = Modified { seconds, nanoseconds };
                    for owner in [ONE, (0, 65_535)] {
                        let entry = Entry { path: path.to_vec(), kind: kind.clone(), mode: 0o4755, owner, modified };
                        assert_eq!(round(&entry), entry);
                    }
                }
            }
        }
    }

    #[test]
    fn the_sandboxs_own_user_has_one_number_in_every_archive() {
        let rows = [
            (Owners::One, (0, 77), ONE, ONE),
            (Owners::Many { own: ONE }, (1_000, 0), (1_000, 0), (1_000, 0)),
            (Owners::Many { own: (1_234, 0) }, (1_234, 0), ONE, (1_234, 0)),
            (Owners::Many { own: (1_234, 0) }, (1_000, 1_000), (1_234, 0), (1_000, 1_000)),
            (Owners::Many { own: (0, 0) }, (33, 1_000), (33, 0), (33, 1_000)),
        ];
        for (owners, inside, archived, back) in rows {
            assert_eq!(owners.turned(inside), archived, "{owners:?}");
            assert_eq!(owners.turned(archived), back, "{owners:?}");
        }
        let mut header = header(b"a", b'0', 0o644, 0, 0, b"", (65_536, 0));
        assert!(matches!(Head::from_block(&header), Err(Rule::Malformed)), "no sandbox has so many users");
        header[108] = b'x';
        assert!(matches!(Head::from_block(&header), Err(Rule::Malformed)));
    }

    #[test]
    fn an_end_is_two_empty_blocks() {
        assert!(next(&mut &[0; 1_024][..]).unwrap().is_none());
        assert!(matches!(next(&mut &[0; 512][..]), Err(Broken::Rule(Rule::Truncated))));
        assert!(matches!(next(&mut &[0; 100][..]), Err(Broken::Rule(Rule::Truncated))));
    }

    #[test]
    fn no_changed_byte_of_a_header_goes_unseen() {
        let entry = Entry {
            path: b"a".to_vec(),
            kind: Kind::File { bytes: 3 },
            mode: 0o644,
            owner: ONE,
            modified: Modified { seconds: 5, nanoseconds: 0 },
        };
        let bytes = entry.headers();
        for at in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[at] ^= 1;
            let same = next(&mut &changed[..]).is_ok_and(|read| read.as_ref() == Some(&entry));
            // The sum's own end is not summed, and any blank ends it.
            assert!(!same || (148..156).contains(&at), "byte {at}");
        }
    }

    #[test]
    fn names_that_pass_are_below_the_workspace() {
        let check = |path: &[u8], expected: Result<usize, Rule>| {
            assert_eq!(components(path).map(|components| components.len()), expected, "{path:?}");
        };
        check(b".", Ok(0));
        check(b"a", Ok(1));
        check(b"a/b\xff/..c", Ok(3));
        check(b"", Err(Rule::NameMalformed));
        check(b"a//b", Err(Rule::NameMalformed));
        check(b"a/./b", Err(Rule::NameMalformed));
        check(b"a/", Err(Rule::NameMalformed));
        check(b"a\0b", Err(Rule::NameMalformed));
        check(b"/a", Err(Rule::Absolute));
        check(b"../a", Err(Rule::Climbs));
        check(b"a/../../b", Err(Rule::Climbs));
        check(b"a/..", Err(Rule::Climbs));
        check(&[b'x'; 256], Err(Rule::NameTooLong));
        check(&b"x/".repeat(3_000), Err(Rule::NameTooLong));
        check(&b"x/".repeat(600)[..1_199], Err(Rule::NameTooLong));
    }

    #[test]
    fn extended_headers_that_lie_are_refused() {
        let text = |records: &[(&str, &str)]| {
            let mut text = Vec::new();
            records.iter().for_each(|(key, value)| record(&mut text, key, value.as_bytes()));
            text
        };
        let rows = [b"".to_vec(), text(&[("path", "a")])];
        for row in rows {
            assert!(Extended::from_text(&row).is_ok(), "{row:?}");
        }
        let rows = [
            text(&[("path", "a"), ("path", "b")]),
            text(&[("uid", "0")]),
            text(&[("SCHILY.xattr.user.x", "y")]),
            text(&[("mtime", "1e9")]),
            text(&[("mtime", "99999999999999999999.000000000")]),
            text(&[("size", "-1")]),
            text(&[("size", "18446744073709551616")]),
            text(&[("GNU.sparse.major", "2")]),
            b"5 a=b\n".to_vec(),
            b"99 path=a\n".to_vec(),
            b"0 path=a\n".to_vec(),
            b"2 \n".to_vec(),
            b"path=a\n".to_vec(),
            b"9999999999999999999999 path=a\n".to_vec(),
        ];
        for row in rows {
            assert!(Extended::from_text(&row).is_err(), "{:?}", String::from_utf8_lossy(&row));
        }
    }
}
