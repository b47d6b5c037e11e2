//! Archives made by hand for this room's own tests, right ones and hostile ones.

/// A header to be written.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Header<'a> {
    pub(crate) name: &'a str,
    pub(crate) prefix: &'a str,
    pub(crate) flag: u8,
    pub(crate) mode: u32,
    pub(crate) size: u64,
    pub(crate) to: &'a str,
}

impl<'a> Header<'a> {
    pub(crate) const fn file(name: &'a str, size: u64) -> Self {
        Self { name, prefix: "", flag: b'0', mode: 0o644, size, to: "" }
    }

    pub(crate) fn block(&self) -> [u8; 512] {
        let mut block = [0; 512];
        let mut put = |at: usize, value: &[u8]| block[at..at + value.len()].copy_from_slice(value);
        put(0, self.name.as_bytes());
        put(100, format!("{:07o}\0", self.mode).as_bytes());
        put(108, b"0000000\x000000000\0");
        put(124, format!("{:011o}\0", self.size).as_bytes());
        put(136, b"14524770000\0");
        put(156, &[self.flag]);
        put(157, self.to.as_bytes());
        put(257, b"ustar\x0000");
        put(345, self.prefix.as_bytes());
        put(148, b"        ");
        let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
        block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        block
    }
}

fn filled(mut bytes: Vec<u8>) -> Vec<u8> {
    bytes.resize(bytes.len().next_multiple_of(512), 0);
    bytes
}

fn records(rows: &[(&str, &str)]) -> Vec<u8> {
    let record = |(key, value): &(&str, &str)| {
        let rest = key.len() + value.len() + 3;
        let mut length = rest + 1;
        while length != rest + length.to_string().len() {
            length = rest + length.to_string().len();
        }
        format!("{length} {key}={value}\n").into_bytes()
    };
    rows.iter().flat_map(record).collect()
}

/// An extended header for one entry.
pub(crate) fn pax(rows: &[(&str, &str)]) -> Vec<u8> {
    extended(b'x', rows)
}

/// An extended header for all entries.
pub(crate) fn global(rows: &[(&str, &str)]) -> Vec<u8> {
    extended(b'g', rows)
}

fn extended(flag: u8, rows: &[(&str, &str)]) -> Vec<u8> {
    let text = records(rows);
    let head = Header { flag, ..Header::file("pax", text.len() as u64) };
    filled([&head.block()[..], &text].concat())
}

/// GNU's long name or long link.
pub(crate) fn gnu_long(flag: u8, text: &str) -> Vec<u8> {
    let head = Header { flag, ..Header::file("././@LongLink", text.len() as u64 + 1) };
    filled([&head.block()[..], text.as_bytes(), &[0]].concat())
}

pub(crate) fn file(name: &str, content: &[u8]) -> Vec<u8> {
    filled([&Header::file(name, content.len() as u64).block()[..], content].concat())
}

pub(crate) fn directory(name: &str) -> Vec<u8> {
    Header { flag: b'5', mode: 0o755, ..Header::file(name, 0) }.block().to_vec()
}

pub(crate) fn link(name: &str, to: &str) -> Vec<u8> {
    Header { flag: b'2', to, ..Header::file(name, 0) }.block().to_vec()
}

pub(crate) fn hard(name: &str, to: &str) -> Vec<u8> {
    Header { flag: b'1', to, ..Header::file(name, 0) }.block().to_vec()
}

/// A whole archive.
pub(crate) fn tar(entries: &[Vec<u8>]) -> Vec<u8> {
    [entries.concat(), vec![0; 1_024]].concat()
}
