//! Archives made by hand, good and hostile. Knows nothing of how ours are written.

use sandbox::Rule;

/// An archive under way.
pub(crate) struct Forged(Vec<u8>);

impl Forged {
    pub(crate) fn new() -> Self {
        Self(Vec::new())
    }

    pub(crate) fn directory(self, name: &str) -> Self {
        self.entry(name.as_bytes(), b'5', b"", b"")
    }

    pub(crate) fn file(self, name: &str, content: &[u8]) -> Self {
        self.entry(name.as_bytes(), b'0', b"", content)
    }

    pub(crate) fn link(self, name: &str, to: &str) -> Self {
        self.entry(name.as_bytes(), b'2', to.as_bytes(), b"")
    }

    pub(crate) fn hard(self, name: &str, to: &str) -> Self {
        self.entry(name.as_bytes(), b'1', to.as_bytes(), b"")
    }

    fn entry(mut self, name: &[u8], flag: u8, to: &[u8], content: &[u8]) -> Self {
        self.0.extend_from_slice(&header(name, flag, to, content.len() as u64));
        self.content(content)
    }

    fn content(mut self, content: &[u8]) -> Self {
        self.0.extend_from_slice(content);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }

    /// An extended header before the next entry.
    fn extended(self, records: &[(&str, &[u8])]) -> Self {
        let mut text = Vec::new();
        for (key, value) in records {
            let rest = key.len() + value.len() + 3;
            let length = (rest + 1..).find(|length| rest + length.to_string().len() == *length).unwrap();
            text.extend_from_slice(format!("{length} {key}=").as_bytes());
            text.extend_from_slice(value);
            text.push(b'\n');
        }
        self.entry(b"pax", b'x', b"", &text)
    }

    fn raw(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self
    }

    fn edit(mut self, edit: impl FnOnce(&mut [u8])) -> Self {
        let last = self.0.len() - 512;
        edit(&mut self.0[last..]);
        seal(&mut self.0[last..]);
        self
    }

    pub(crate) fn end(self) -> Vec<u8> {
        self.raw(&[0; 1_024]).0
    }
}

fn header(name: &[u8], flag: u8, to: &[u8], size: u64) -> [u8; 512] {
    let mut block = [0; 512];
    block[..name.len().min(100)].copy_from_slice(&name[..name.len().min(100)]);
    block[100..108].copy_from_slice(b"0000755\0");
    block[108..116].copy_from_slice(b"0001750\0");
    block[116..124].copy_from_slice(b"0001750\0");
    block[124..136].copy_from_slice(format!("{size:011o}\0").as_bytes());
    block[136..148].copy_from_slice(b"14000000000\0");
    block[156] = flag;
    block[157..157 + to.len().min(100)].copy_from_slice(&to[..to.len().min(100)]);
    block[257..265].copy_from_slice(b"ustar\x0000");
    seal(&mut block);
    block
}

fn seal(block: &mut [u8]) {
    block[148..156].fill(b' ');
    let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
}

/// An archive that must be refused: its fault, the rule that names it, its bytes.
type Hostile = (String, Rule, Vec<u8>);

fn top() -> Forged {
    Forged::new().directory("./")
}

fn row(name: &str, rule: Rule, forged: Forged) -> Hostile {
    (name.to_owned(), rule, forged.end())
}

/// Archives that must be refused.
pub(crate) fn hostile() -> Vec<Hostile> {
    [names(), places(), forms(), kinds(), cuts()].concat()
}

fn names() -> Vec<Hostile> {
    vec![
        row("an absolute path", Rule::Absolute, top().file("/etc/x", b"")),
        row("an absolute directory", Rule::Absolute, top().directory("/workspace/x/")),
        row("an absolute path, extended", Rule::Absolute, top().extended(&[("path", b"/x")]).file("x", b"")),
        row("a path that climbs", Rule::Climbs, top().file("../x", b"")),
        row("a path that climbs late", Rule::Climbs, top().directory("a/").file("a/../../x", b"")),
        row("a link that climbs by its name", Rule::Climbs, top().link("../x", "a")),
        row("an empty path", Rule::NameMalformed, top().file("", b"")),
        row("an empty component", Rule::NameMalformed, top().directory("a/").file("a//x", b"")),
        row("a dot in a path", Rule::NameMalformed, top().file("./x", b"")),
        row("a zero byte", Rule::NameMalformed, top().extended(&[("path", b"a\0b")]).file("x", b"")),
        row("the workspace as a file", Rule::NameMalformed, top().file(".", b"")),
        row("a long component", Rule::NameTooLong, top().extended(&[("path", &[b'x'; 256])]).file("x", b"")),
        row("a long path", Rule::NameTooLong, top().extended(&[("path", &b"x/".repeat(2_100))]).file("x", b"")),
        row("a deep path", Rule::NameTooLong, top().extended(&[("path", &b"x/".repeat(700)[..1_399])]).file("x", b"")),
    ]
}

fn places() -> Vec<Hostile> {
    vec![
        row("through a link to outside", Rule::ThroughLink, top().link("l", "/etc").file("l/x", b"")),
        row("through a link inside", Rule::ThroughLink, top().directory("d/").link("l", "d").file("l/x", b"")),
        row("a directory through a link", Rule::ThroughLink, top().link("l", "/tmp").directory("l/d/")),
        row("without its directory", Rule::NoParent, top().file("d/x", b"")),
        row("below a file", Rule::NoParent, top().file("d", b"").file("d/x", b"")),
        row("below a directory that was left", Rule::NoParent, top().directory("d/").file("e", b"").file("d/x", b"")),
        row("before the workspace", Rule::NoParent, Forged::new().file("x", b"")),
        row("a file twice", Rule::Duplicate, top().file("a", b"x").file("a", b"y")),
        row("a file over a link", Rule::Duplicate, top().link("a", "/tmp/x").file("a", b"y")),
        row("a directory over a link", Rule::Duplicate, top().link("a", "/tmp").directory("a/")),
        row("a link over a directory", Rule::Duplicate, top().directory("a/").link("a", "/tmp")),
        row("a directory twice", Rule::Duplicate, top().directory("a/").directory("a/")),
        row("the workspace twice", Rule::Duplicate, top().directory("./")),
        row("a hard link over a file", Rule::Duplicate, top().file("a", b"").file("b", b"").hard("b", "a")),
        row("a hard link to the host", Rule::LinkEscapes, top().hard("a", "/etc/passwd")),
        row("a hard link that climbs", Rule::LinkEscapes, top().hard("a", "../etc/passwd")),
        row("a hard link through a link", Rule::LinkEscapes, top().link("l", "/etc").hard("a", "l/passwd")),
        row("a hard link to a link", Rule::LinkMissing, top().link("l", "/etc/passwd").hard("a", "l")),
        row("a hard link to a directory", Rule::LinkMissing, top().directory("d/").hard("a", "d")),
        row("a hard link to the workspace", Rule::LinkMissing, top().hard("a", ".")),
        row("a hard link to nothing", Rule::LinkMissing, top().hard("a", "b")),
        row("a hard link to itself", Rule::LinkMissing, top().hard("a", "a")),
        row("a link to nowhere at all", Rule::NameMalformed, top().link("a", "")),
        row("a long link", Rule::NameTooLong, top().extended(&[("linkpath", &[b'x'; 5_000])]).link("a", "b")),
    ]
}

fn forms() -> Vec<Hostile> {
    vec![
        row(
            "another root",
            Rule::Malformed,
            top().extended(&[("SCHILY.xattr.security.capability", b"x")]).file("a", b""),
        ),
        row("an owner", Rule::Malformed, top().extended(&[("uid", b"0")]).file("a", b"")),
        row("no number", Rule::Malformed, top().file("a", b"").edit(|block| block[124] = b'x')),
        row("a negative number", Rule::Malformed, top().file("a", b"").edit(|block| block[124] = b'-')),
        row("a binary number", Rule::Malformed, top().file("a", b"").edit(|block| block[124] = 0x80)),
        row("a mode beyond all", Rule::Malformed, top().file("a", b"").edit(|block| block[100..107].fill(b'7'))),
        row("a prefix", Rule::Malformed, top().file("a", b"").edit(|block| block[345] = b'p')),
        row(
            "an old form",
            Rule::Malformed,
            top().file("a", b"").edit(|block| block[257..265].copy_from_slice(b"ustar  \0")),
        ),
        row("a directory with content", Rule::Malformed, top().entry(b"d/", b'5', b"", b"content")),
        row("a directory without its slash", Rule::Malformed, top().directory("d")),
        row("something after its end", Rule::Malformed, top().raw(&[0; 1_024]).file("a", b"")),
        row("half of an end", Rule::Malformed, top().raw(&[0; 512]).file("a", b"")),
        row("a sparse file without a size", Rule::Malformed, sparse(top(), None, b"0\n")),
        row("a map that overlaps", Rule::Malformed, sparse(top(), Some(b"100"), b"2\n0\n10\n5\n10\n")),
        row("a map beyond the file", Rule::Malformed, sparse(top(), Some(b"100"), b"1\n99\n10\n")),
        row("a map without end", Rule::Malformed, sparse(top(), Some(b"100"), b"99999999999\n")),
        row("a map of more than follows", Rule::Malformed, sparse(top(), Some(b"9000000"), b"1\n0\n8000000\n")),
        row("a long extended header", Rule::Malformed, top().extended(&[("path", &[b'x'; 20_000])]).file("a", b"")),
        row("two extended headers", Rule::UnknownKind, top().extended(&[]).extended(&[]).file("a", b"")),
        row(
            "more entries than allowed",
            Rule::TooManyEntries,
            (0..60).fold(top(), |all, n| all.file(&format!("f{n}"), b"")),
        ),
        row("more bytes than allowed", Rule::TooLarge, top().file("a", &vec![1; 2 << 20])),
    ]
}

fn kinds() -> Vec<Hostile> {
    let mut rows = Vec::new();
    for (kind, flag) in [("a character device", b'3'), ("a block device", b'4'), ("a FIFO", b'6')] {
        rows.push(row(kind, Rule::Device, top().entry(b"a", flag, b"", b"")));
    }
    for flag in *b"7gLKSVNDAX\0z" {
        rows.push(row(&format!("kind {flag}"), Rule::UnknownKind, top().entry(b"a", flag, b"", b"")));
    }
    rows
}

fn cuts() -> Vec<Hostile> {
    let mut rows = Vec::new();
    let whole = top().file("a", &[7; 3_000]).end();
    for length in [0, 1, 511, 512, 700, 1_024, 2_000, 4_096, whole.len() - 512, whole.len() - 1] {
        rows.push((format!("cut to {length}"), Rule::Truncated, whole[..length].to_vec()));
    }
    let mut sum = top().file("a", b"x").end();
    sum[512] ^= 1;
    rows.push(("a wrong sum".to_owned(), Rule::Malformed, sum));
    rows.push(("noise".to_owned(), Rule::Malformed, vec![0xa5; 4_096]));
    rows.push(("nothing but its end".to_owned(), Rule::Malformed, Forged::new().end()));
    rows
}

fn sparse(before: Forged, bytes: Option<&[u8]>, map: &[u8]) -> Forged {
    let mut records: Vec<(&str, &[u8])> =
        vec![("GNU.sparse.major", b"1"), ("GNU.sparse.minor", b"0"), ("GNU.sparse.name", b"s")];
    records.extend(bytes.map(|bytes| ("GNU.sparse.realsize", bytes)));
    let mut content = map.to_vec();
    content.resize(512, 0);
    before.extended(&records).entry(b"GNUSparseFile.0", b'0', b"", &content)
}
