//! FUSE's wire as far as a read-only file system needs it: what the kernel asks, and the bytes of what it is told. No IO.
//! Numbers are in the machine's own order. A request that is cut or makes no sense is told apart, never guessed at.

use std::time::Duration;

/// The version that is spoken; a kernel with a newer one speaks this one, too.
pub(crate) const MAJOR: u32 = 7;
pub(crate) const MINOR: u32 = 31;
/// What one read from the device may take: the kernel wants room for its largest request, which is a write.
pub(crate) const REQUEST_BYTES_MAX: usize = WRITE_BYTES_MAX as usize + 4_096;
/// Bytes of a write, of which there are none; the least that a kernel takes.
const WRITE_BYTES_MAX: u32 = 4_096;
/// Pages of one read at most, and their bytes.
const READ_PAGES_MAX: u16 = 256;
pub(crate) const READ_BYTES_MAX: usize = 1 << 20;
/// Requests of the kernel's own (reading ahead) that may wait at once.
const BACKGROUND_MAX: u16 = 12;
/// Bytes of a name at most.
pub(crate) const NAME_BYTES_MAX: usize = 255;
pub(crate) const HEAD_BYTES: usize = 40;
/// The inode of the top.
pub(crate) const ROOT: u64 = 1;

const ASYNC_READ: u32 = 1 << 0;
const READDIRPLUS: u32 = 1 << 13;
const READDIRPLUS_AUTO: u32 = 1 << 14;
const PARALLEL_DIRECTORIES: u32 = 1 << 18;
const MAX_PAGES: u32 = 1 << 22;
const WANTED: u32 = ASYNC_READ | READDIRPLUS | READDIRPLUS_AUTO | PARALLEL_DIRECTORIES | MAX_PAGES;

/// What the kernel asks.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Request<'a> {
    /// Its number.
    pub(crate) unique: u64,
    /// Which inode it is about.
    pub(crate) node: u64,
    pub(crate) operation: Operation<'a>,
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Operation<'a> {
    Begin {
        major: u32,
        readahead: u32,
        flags: u32,
    },
    Lookup {
        name: &'a [u8],
    },
    Forget {
        lookups: u64,
    },
    /// Inodes with their lookups.
    ForgetMany(Vec<(u64, u64)>),
    Attributes,
    Open,
    Read {
        handle: u64,
        offset: u64,
        bytes: u32,
    },
    Release {
        handle: u64,
    },
    Statistics,
    OpenDirectory,
    ReadDirectory {
        handle: u64,
        offset: u64,
        bytes: u32,
        plus: bool,
    },
    ReleaseDirectory {
        handle: u64,
    },
    /// Give up the request with this number.
    Interrupt {
        unique: u64,
    },
    End,
    /// Would change something.
    Change,
    /// What this file system does not know, and says so once.
    Unknown,
}

/// Why a request can't be read; its number, as far as it has one.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Cut(pub(crate) Option<u64>);

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    fn u32(&mut self) -> Option<u32> {
        self.take(4)?.try_into().ok().map(u32::from_ne_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.take(8)?.try_into().ok().map(u64::from_ne_bytes)
    }

    /// A name with its end.
    fn name(&mut self) -> Option<&'a [u8]> {
        let end = self.0.iter().position(|byte| *byte == 0)?;
        self.take(end)
    }
}

/// Reads one request; the device gives each whole.
pub(crate) fn request(bytes: &[u8]) -> Result<Request<'_>, Cut> {
    let mut reader = Reader(bytes);
    let mut head = || -> Option<(u32, u32, u64, u64)> {
        let head = (reader.u32()?, reader.u32()?, reader.u64()?, reader.u64()?);
        reader.take(HEAD_BYTES - 24)?;
        Some(head)
    };
    let (length, opcode, unique, node) = head().ok_or(Cut(None))?;
    if length as usize != bytes.len() {
        return Err(Cut(Some(unique)));
    }
    let operation = operation(opcode, &mut reader).ok_or(Cut(Some(unique)))?;
    Ok(Request { unique, node, operation })
}

fn operation<'a>(opcode: u32, reader: &mut Reader<'a>) -> Option<Operation<'a>> {
    Some(match opcode {
        1 => Operation::Lookup { name: reader.name()? },
        2 => Operation::Forget { lookups: reader.u64()? },
        3 => Operation::Attributes,
        // Attributes, links, nodes, directories, removals, renames, writes, extended attributes, creation, allocation.
        4 | 6 | 8..=13 | 16 | 21 | 24 | 35 | 43 | 45 | 47 | 51 => Operation::Change,
        14 => Operation::Open,
        15 => {
            let (handle, offset, bytes) = (reader.u64()?, reader.u64()?, reader.u32()?);
            Operation::Read { handle, offset, bytes }
        }
        17 => Operation::Statistics,
        18 => Operation::Release { handle: reader.u64()? },
        26 => {
            let (major, _minor) = (reader.u32()?, reader.u32()?);
            // An ancient kernel's question ends here.
            let (readahead, flags) = (reader.u32().unwrap_or(0), reader.u32().unwrap_or(0));
            Operation::Begin { major, readahead, flags }
        }
        27 => Operation::OpenDirectory,
        28 | 44 => {
            let (handle, offset, bytes) = (reader.u64()?, reader.u64()?, reader.u32()?);
            Operation::ReadDirectory { handle, offset, bytes, plus: opcode == 44 }
        }
        29 => Operation::ReleaseDirectory { handle: reader.u64()? },
        36 => Operation::Interrupt { unique: reader.u64()? },
        38 => Operation::End,
        42 => {
            let (count, _) = (reader.u32()?, reader.u32()?);
            let forgotten = (0..count).map(|_| Some((reader.u64()?, reader.u64()?)));
            Operation::ForgetMany(forgotten.collect::<Option<_>>()?)
        }
        _ => Operation::Unknown,
    })
}

/// The head of an answer: `error` is 0 or a negated error number.
pub(crate) fn head(unique: u64, error: i32, body_bytes: usize) -> [u8; 16] {
    let mut head = [0; 16];
    head[..4].copy_from_slice(&u32::try_from(16 + body_bytes).unwrap_or(u32::MAX).to_ne_bytes());
    head[4..8].copy_from_slice(&error.to_ne_bytes());
    head[8..].copy_from_slice(&unique.to_ne_bytes());
    head
}

struct Writer(Vec<u8>);

impl Writer {
    fn u16(&mut self, value: u16) {
        self.0.extend_from_slice(&value.to_ne_bytes());
    }

    fn u32(&mut self, value: u32) {
        self.0.extend_from_slice(&value.to_ne_bytes());
    }

    fn u64(&mut self, value: u64) {
        self.0.extend_from_slice(&value.to_ne_bytes());
    }

    fn zeros(&mut self, length: usize) {
        self.0.resize(self.0.len() + length, 0);
    }
}

/// The answer to [`Operation::Begin`].
pub(crate) fn begun(readahead: u32, flags: u32) -> Vec<u8> {
    let mut out = Writer(Vec::with_capacity(64));
    out.u32(MAJOR);
    out.u32(MINOR);
    out.u32(readahead);
    out.u32(flags & WANTED);
    out.u16(BACKGROUND_MAX);
    out.u16(BACKGROUND_MAX / 4 * 3);
    out.u32(WRITE_BYTES_MAX);
    out.u32(1_000_000_000);
    out.u16(READ_PAGES_MAX);
    out.zeros(64 - 30);
    out.0
}

/// What is told of an inode.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Attributes {
    pub(crate) node: u64,
    pub(crate) directory: bool,
    pub(crate) bytes: u64,
    pub(crate) modified_s: u64,
    pub(crate) owner: (u32, u32),
}

impl Attributes {
    fn put(&self, out: &mut Writer) {
        out.u64(self.node);
        out.u64(self.bytes);
        out.u64(self.bytes.div_ceil(512));
        for _ in 0..3 {
            out.u64(self.modified_s);
        }
        out.zeros(12);
        out.u32(if self.directory { 0o040_555 } else { 0o100_444 });
        out.u32(1);
        out.u32(self.owner.0);
        out.u32(self.owner.1);
        out.u32(0);
        out.u32(4_096);
        out.u32(0);
    }
}

/// The answer to [`Operation::Attributes`].
pub(crate) fn attributes(of: &Attributes, valid: Duration) -> Vec<u8> {
    let mut out = Writer(Vec::with_capacity(104));
    out.u64(valid.as_secs());
    out.u32(valid.subsec_nanos());
    out.u32(0);
    of.put(&mut out);
    out.0
}

fn put_entry(out: &mut Writer, of: Option<&Attributes>, valid: Duration) {
    out.u64(of.map_or(0, |of| of.node));
    out.u64(0);
    for _ in 0..2 {
        out.u64(valid.as_secs());
    }
    for _ in 0..2 {
        out.u32(valid.subsec_nanos());
    }
    match of {
        Some(of) => of.put(out),
        None => out.zeros(88),
    }
}

/// The answer to [`Operation::Lookup`]; `None`: there is nothing, and that holds for as long, too.
pub(crate) fn entry(of: Option<&Attributes>, valid: Duration) -> Vec<u8> {
    let mut out = Writer(Vec::with_capacity(128));
    put_entry(&mut out, of, valid);
    out.0
}

/// The answer to [`Operation::Open`] and [`Operation::OpenDirectory`].
pub(crate) fn opened(handle: u64) -> Vec<u8> {
    let mut out = Writer(Vec::with_capacity(16));
    out.u64(handle);
    out.zeros(8);
    out.0
}

/// The answer to [`Operation::Statistics`]: nothing is known of a bucket's size, so nothing is free and nothing is used.
pub(crate) fn statistics() -> Vec<u8> {
    let mut out = Writer(Vec::with_capacity(80));
    out.zeros(40);
    out.u32(4_096);
    out.u32(255);
    out.u32(4_096);
    out.zeros(28);
    out.0
}

/// The answer to [`Operation::ReadDirectory`] as it fills.
pub(crate) struct Directory {
    out: Writer,
    room: usize,
    plus: bool,
}

impl Directory {
    pub(crate) fn new(bytes: u32, plus: bool) -> Self {
        Self { out: Writer(Vec::new()), room: (bytes as usize).min(READ_BYTES_MAX), plus }
    }

    /// Whether an entry with this name has room.
    pub(crate) fn has_room(&self, name: &str) -> bool {
        let whole = if self.plus { 128 } else { 0 } + 24 + name.len();
        self.out.0.len() + whole.next_multiple_of(8) <= self.room
    }

    /// Adds an entry; `next` is where the one behind it begins. `of` is what a lookup would have told, when this counts as one.
    pub(crate) fn put(
        &mut self,
        name: &str,
        directory: bool,
        node: u64,
        next: u64,
        of: Option<&Attributes>,
        valid: Duration,
    ) {
        if self.plus {
            // Without attributes the kernel takes it as a name only, and asks when it is used.
            put_entry(&mut self.out, of, valid);
        }
        self.out.u64(node);
        self.out.u64(next);
        self.out.u32(u32::try_from(name.len()).unwrap_or(0));
        self.out.u32(if directory { 4 } else { 8 });
        self.out.0.extend_from_slice(name.as_bytes());
        let length = self.out.0.len();
        self.out.zeros(length.next_multiple_of(8) - length);
    }

    pub(crate) fn end(self) -> Vec<u8> {
        self.out.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(opcode: u32, body: &[u8]) -> Vec<u8> {
        let mut bytes = u32::try_from(HEAD_BYTES + body.len()).unwrap().to_ne_bytes().to_vec();
        bytes.extend(opcode.to_ne_bytes());
        bytes.extend(7_u64.to_ne_bytes());
        bytes.extend(1_u64.to_ne_bytes());
        bytes.resize(HEAD_BYTES, 0);
        bytes.extend(body);
        bytes
    }

    #[test]
    fn requests_are_read() {
        let numbers = |numbers: &[u64]| numbers.iter().flat_map(|number| number.to_ne_bytes()).collect::<Vec<u8>>();
        let rows: Vec<(u32, Vec<u8>, Option<Operation<'_>>)> = vec![
            (1, b"name\0".to_vec(), Some(Operation::Lookup { name: b"name" })),
            (1, b"no end".to_vec(), None),
            (2, numbers(&[3]), Some(Operation::Forget { lookups: 3 })),
            (2, vec![0; 7], None),
            (15, numbers(&[5, 6, 7, 0, 0]), Some(Operation::Read { handle: 5, offset: 6, bytes: 7 })),
            (15, numbers(&[5, 6]), None),
            (16, Vec::new(), Some(Operation::Change)),
            (36, numbers(&[9]), Some(Operation::Interrupt { unique: 9 })),
            (42, numbers(&[2, 10, 1, 11, 2]), Some(Operation::ForgetMany(vec![(10, 1), (11, 2)]))),
            (42, numbers(&[u64::from(u32::MAX), 10, 1]), None),
            (99, Vec::new(), Some(Operation::Unknown)),
        ];
        for (opcode, body, expected) in rows {
            let bytes = asked(opcode, &body);
            let got = request(&bytes);
            match expected {
                Some(operation) => assert_eq!(got, Ok(Request { unique: 7, node: 1, operation }), "{opcode}"),
                None => assert_eq!(got, Err(Cut(Some(7))), "{opcode}"),
            }
            for length in 0..HEAD_BYTES {
                assert!(request(&bytes[..length]).is_err(), "{opcode} cut to {length}");
            }
        }
        let mut longer = asked(3, &[]);
        longer.push(0);
        assert_eq!(request(&longer), Err(Cut(Some(7))));
    }

    #[test]
    fn answers_have_the_kernels_sizes() {
        let of = Attributes { node: 2, directory: false, bytes: 513, modified_s: 9, owner: (1, 2) };
        let valid = Duration::from_millis(1_500);
        assert_eq!(begun(1, u32::MAX).len(), 64);
        assert_eq!(attributes(&of, valid).len(), 104);
        assert_eq!((entry(Some(&of), valid).len(), entry(None, valid).len()), (128, 128));
        assert_eq!((opened(1).len(), statistics().len()), (16, 80));
        for (plus, bytes) in [(false, 32 + 32), (true, 160 + 160)] {
            let mut directory = Directory::new(bytes, plus);
            for name in ["a", "abcdefgh"] {
                assert!(directory.has_room(name), "{name} {plus}");
                directory.put(name, false, 2, 1, Some(&of), valid);
            }
            assert!(!directory.has_room(""), "{plus}");
            assert_eq!(directory.end().len(), bytes as usize);
        }
    }
}
