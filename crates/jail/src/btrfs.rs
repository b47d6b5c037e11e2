//! Writes an empty btrfs file system into a sparse file: one device, single copies, crc32c; superblock, seven one-leaf trees,
//! a system and a metadata chunk, nothing else. The pool of workspace images is such a file (see `pool`).
//!
//! Why not `mkfs.btrfs`: it need not be installed. What the kernel can make by itself at the first mount (the list of free
//! space, the tree of identities, chunks for data) is left to it.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;

const SECTOR: u64 = 4_096;
const NODE: u64 = 16 << 10;
const STRIPE: u64 = 64 << 10;
/// Where the superblock stands.
const SUPER_AT: u64 = 64 << 10;
const SUPER_BYTES: usize = 4_096;
/// Checksums begin every block and are not part of what they sum.
const SUM_BYTES: usize = 32;
const HEADER_BYTES: usize = 101;
const ITEM_BYTES: usize = 25;
/// The first transaction.
const GENERATION: u64 = 1;

/// Logical addresses equal physical ones, in both chunks.
const SYSTEM: Chunk = Chunk { at: 1 << 20, bytes: 4 << 20, kind: 0x2 };
const METADATA: Chunk = Chunk { at: 5 << 20, bytes: 32 << 20, kind: 0x4 };
/// What a file system of this layout takes at least: its chunks, and room for data and more metadata.
pub(crate) const BYTES_MIN: u64 = 256 << 20;

const CHUNK_OBJECT: u64 = 256;
const FIRST_FILE: u64 = 256;
const ROOT_DIRECTORY: u64 = 6;

/// The trees, by object: each is one leaf.
const ROOT_TREE: u64 = 1;
const EXTENT_TREE: u64 = 2;
const CHUNK_TREE: u64 = 3;
const DEVICE_TREE: u64 = 4;
const FILE_TREE: u64 = 5;
const SUM_TREE: u64 = 7;
const RELOCATION_TREE: u64 = 0_u64.wrapping_sub(9);
/// Those in the metadata chunk, in the order of their blocks.
const TREES: [u64; 6] = [ROOT_TREE, EXTENT_TREE, DEVICE_TREE, FILE_TREE, SUM_TREE, RELOCATION_TREE];

/// Kinds of items.
const INODE: u8 = 1;
const INODE_NAME: u8 = 12;
const DIRECTORY_NAME: u8 = 84;
const ROOT: u8 = 132;
const BLOCK: u8 = 169;
const BLOCK_GROUP: u8 = 192;
const DEVICE_EXTENT: u8 = 204;
const DEVICE: u8 = 216;
const CHUNK: u8 = 228;

struct Chunk {
    at: u64,
    bytes: u64,
    kind: u64,
}

/// What names a file system and its one device.
struct Identity {
    file_system: [u8; 16],
    device: [u8; 16],
    chunk_tree: [u8; 16],
    file_tree: [u8; 16],
}

impl Identity {
    fn of(seed: [u8; 32]) -> Self {
        let mut parts = [[0; 16]; 4];
        for (number, part) in (0_u8..).zip(&mut parts) {
            for (index, byte) in part.iter_mut().enumerate() {
                // Each a fixed rearrangement of the seed; equal only when the seeds are.
                *byte = seed[(index + 16 * usize::from(number & 1)) % 32] ^ (number << 6) ^ number;
            }
            part[6] = part[6] & 0x0f | 0x40;
            part[8] = part[8] & 0x3f | 0x80;
        }
        let [file_system, device, chunk_tree, file_tree] = parts;
        Self { file_system, device, chunk_tree, file_tree }
    }
}

/// Bytes in the order of a structure's fields.
#[derive(Default)]
struct Fields(Vec<u8>);

impl Fields {
    fn u8(mut self, value: u8) -> Self {
        self.0.push(value);
        self
    }

    fn u16(mut self, value: u16) -> Self {
        self.0.extend_from_slice(&value.to_le_bytes());
        self
    }

    fn u32(mut self, value: u64) -> Self {
        self.0.extend_from_slice(&u32::try_from(value).unwrap_or(u32::MAX).to_le_bytes());
        self
    }

    fn u64(mut self, value: u64) -> Self {
        self.0.extend_from_slice(&value.to_le_bytes());
        self
    }

    fn all(self, values: &[u64]) -> Self {
        values.iter().fold(self, |fields, value| fields.u64(*value))
    }

    fn bytes(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self
    }

    fn zeros(mut self, count: usize) -> Self {
        self.0.resize(self.0.len() + count, 0);
        self
    }

    fn key(self, (object, kind, offset): (u64, u8, u64)) -> Self {
        self.u64(object).u8(kind).u64(offset)
    }
}

/// An item of a leaf: its key and its data.
type Item = ((u64, u8, u64), Vec<u8>);

/// Formats `file`, which must be new and empty, as a file system of `bytes`. `seed` makes its identity.
pub(crate) fn format(file: &File, bytes: u64, seed: [u8; 32]) -> io::Result<()> {
    let bytes = bytes / SECTOR * SECTOR;
    if bytes < BYTES_MIN {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("pool_bytes_min = {BYTES_MIN}")));
    }
    let identity = Identity::of(seed);
    file.set_len(bytes)?;
    file.write_all_at(&leaf(&identity, CHUNK_TREE, SYSTEM.at, chunk_tree(&identity, bytes)), SYSTEM.at)?;
    for tree in TREES {
        let items = match tree {
            ROOT_TREE => root_tree(&identity),
            EXTENT_TREE => extent_tree(),
            DEVICE_TREE => device_tree(&identity),
            FILE_TREE | RELOCATION_TREE => directory(FIRST_FILE),
            _ => Vec::new(),
        };
        file.write_all_at(&leaf(&identity, tree, block_of(tree), items), block_of(tree))?;
    }
    file.write_all_at(&superblock(&identity, bytes), SUPER_AT)
}

fn block_of(tree: u64) -> u64 {
    let place = (0_u64..).zip(TREES).find(|(_, found)| *found == tree).map_or(0, |(place, _)| place);
    METADATA.at + place * NODE
}

fn leaf(identity: &Identity, owner: u64, at: u64, items: Vec<Item>) -> Vec<u8> {
    const WRITTEN: u64 = 1;
    const BACK_REFERENCES: u64 = 1 << 56;
    let count = items.len() as u64;
    let head = Fields::default().zeros(SUM_BYTES).bytes(&identity.file_system).u64(at).u64(WRITTEN | BACK_REFERENCES);
    let mut out = head.bytes(&identity.chunk_tree).u64(GENERATION).u64(owner).u32(count).u8(0).0;
    out.resize(usize::try_from(NODE).unwrap_or(0), 0);
    let mut end = out.len() - HEADER_BYTES;
    for (index, (key, data)) in items.into_iter().enumerate() {
        end -= data.len();
        let item = Fields::default().key(key).u32(end as u64).u32(data.len() as u64).0;
        put(&mut out, HEADER_BYTES + index * ITEM_BYTES, &item);
        put(&mut out, HEADER_BYTES + end, &data);
    }
    sum(&mut out);
    out
}

fn put(to: &mut [u8], at: usize, bytes: &[u8]) {
    to[at..at + bytes.len()].copy_from_slice(bytes);
}

fn chunk_tree(identity: &Identity, bytes: u64) -> Vec<Item> {
    let mut items = vec![((1, DEVICE, 1), device(identity, bytes))];
    items.extend([SYSTEM, METADATA].map(|chunk| (chunk.key(), chunk.data(identity))));
    items
}

impl Chunk {
    fn key(&self) -> (u64, u8, u64) {
        (CHUNK_OBJECT, CHUNK, self.at)
    }

    fn data(&self, identity: &Identity) -> Vec<u8> {
        let fields = Fields::default().all(&[self.bytes, EXTENT_TREE, STRIPE, self.kind]);
        let fields = fields.u32(STRIPE).u32(STRIPE).u32(SECTOR).u16(1).u16(1);
        fields.u64(1).u64(self.at).bytes(&identity.device).0
    }
}

fn device(identity: &Identity, bytes: u64) -> Vec<u8> {
    let fields = Fields::default().all(&[1, bytes, SYSTEM.bytes + METADATA.bytes]);
    let fields = fields.u32(SECTOR).u32(SECTOR).u32(SECTOR).all(&[0, 0, 0]).u32(0).u8(0).u8(0);
    fields.bytes(&identity.device).bytes(&identity.file_system).0
}

fn device_tree(identity: &Identity) -> Vec<Item> {
    let extent = |chunk: &Chunk| {
        let fields = Fields::default().all(&[CHUNK_TREE, CHUNK_OBJECT, chunk.at, chunk.bytes]);
        ((1, DEVICE_EXTENT, chunk.at), fields.bytes(&identity.chunk_tree).0)
    };
    [SYSTEM, METADATA].iter().map(extent).collect()
}

fn extent_tree() -> Vec<Item> {
    const OF_A_TREE: u64 = 2;
    const OWNER: u8 = 176;
    let block = |at, tree| ((at, BLOCK, 0), Fields::default().all(&[1, GENERATION, OF_A_TREE]).u8(OWNER).u64(tree).0);
    let group = |chunk: &Chunk, blocks: u64| {
        let data = Fields::default().all(&[blocks * NODE, CHUNK_OBJECT, chunk.kind]).0;
        ((chunk.at, BLOCK_GROUP, chunk.bytes), data)
    };
    let mut items = vec![block(SYSTEM.at, CHUNK_TREE), group(&SYSTEM, 1), group(&METADATA, TREES.len() as u64)];
    items.extend(TREES.map(|tree| block(block_of(tree), tree)));
    items.sort_unstable_by_key(|(key, _)| *key);
    items
}

fn inode(bytes: u64) -> Fields {
    const DIRECTORY: u64 = 0o040_755;
    // Generations, bytes, room, group; links, owner, mode; device, flags, sequence; reserved; times.
    let fields = Fields::default().all(&[GENERATION, 0, bytes, NODE, 0]).u32(1).u32(0).u32(0).u32(DIRECTORY);
    fields.zeros(3 * 8 + 4 * 8 + 4 * 12)
}

/// An empty directory that is its own parent.
fn directory(object: u64) -> Vec<Item> {
    let name = Fields::default().u64(0).u16(2).bytes(b"..").0;
    vec![((object, INODE, 0), inode(0).0), ((object, INODE_NAME, object), name)]
}

fn root_tree(identity: &Identity) -> Vec<Item> {
    const DEFAULT: &[u8] = b"default";
    let name = Fields::default().u64(0).u16(7).bytes(DEFAULT).0;
    let to = Fields::default().key((FILE_TREE, ROOT, u64::MAX)).u64(GENERATION).u16(0).u16(7).u8(2).bytes(DEFAULT).0;
    let mut items = directory(ROOT_DIRECTORY);
    items.push(((FILE_TREE, INODE_NAME, ROOT_DIRECTORY), name));
    items.push(((ROOT_DIRECTORY, DIRECTORY_NAME, u64::from(crc32c(!1, DEFAULT))), to));
    let roots = TREES.into_iter().filter(|tree| *tree != ROOT_TREE);
    items.extend(roots.map(|tree| ((tree, ROOT, 0), root(identity, tree))));
    items.sort_unstable_by_key(|(key, _)| *key);
    items
}

fn root(identity: &Identity, tree: u64) -> Vec<u8> {
    let first = if matches!(tree, FILE_TREE | RELOCATION_TREE) { FIRST_FILE } else { 0 };
    let own = if tree == FILE_TREE { identity.file_tree } else { [0; 16] };
    // Generation, directory, block, limit, bytes, last snapshot, flags; references; where a removal stands; level.
    let fields = inode(3).all(&[GENERATION, first, block_of(tree), 0, NODE, 0, 0]).u32(1).zeros(17).u8(0).u8(0);
    // The second generation; identities of itself, its parent and its source; transactions; times; reserved.
    fields.u64(GENERATION).bytes(&own).zeros(2 * 16 + 4 * 8 + 4 * 12 + 8 * 8).0
}

fn superblock(identity: &Identity, bytes: u64) -> Vec<u8> {
    const MAGIC: &[u8; 8] = b"_BHRfS_M";
    /// Mixed back references, large blocks, extended references, small items for blocks, no items for holes.
    const NEEDED: u64 = 0x1 | 0x20 | 0x40 | 0x100 | 0x200;
    const CHUNKS_AT: usize = 811;
    let system = Fields::default().key(SYSTEM.key()).bytes(&SYSTEM.data(identity)).0;
    let blocks = TREES.len() as u64 + 1;
    let fields = Fields::default().zeros(SUM_BYTES).bytes(&identity.file_system).u64(SUPER_AT).u64(1).bytes(MAGIC);
    // Generation, roots, logs; size, use, root directory, devices.
    let fields = fields.all(&[GENERATION, block_of(ROOT_TREE), SYSTEM.at, 0, 0]);
    let fields = fields.all(&[bytes, blocks * NODE, ROOT_DIRECTORY, 1]);
    let fields = fields.u32(SECTOR).u32(NODE).u32(NODE).u32(SECTOR).u32(system.len() as u64).u64(GENERATION);
    let fields = fields.all(&[0, 0, NEEDED]).u16(0).zeros(3).bytes(&device(identity, bytes));
    // No label; no list of free space of the older kind.
    let mut out = fields.zeros(256).u64(u64::MAX).0;
    out.resize(SUPER_BYTES, 0);
    put(&mut out, CHUNKS_AT, &system);
    sum(&mut out);
    out
}

/// Puts the checksum of a block before it.
fn sum(block: &mut [u8]) {
    let sum = !crc32c(!0, &block[SUM_BYTES..]);
    put(block, 0, &sum.to_le_bytes());
}

/// CRC-32C (Castagnoli), bits reversed, without the inversions before and after.
fn crc32c(start: u32, bytes: &[u8]) -> u32 {
    const POLYNOMIAL: u32 = 0x82f6_3b78;
    bytes.iter().fold(start, |crc, byte| {
        let shift = |crc: u32| if crc & 1 == 1 { crc >> 1 ^ POLYNOMIAL } else { crc >> 1 };
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| shift(crc))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn sums_are_those_of_the_format() {
        assert_eq!(!crc32c(!0, b"123456789"), 0xe306_9283);
        assert_eq!(crc32c(!1, b"default"), 2_378_154_706);
    }

    /// The format's own checker must find nothing to say.
    fn check(bytes: u64, damaged_at: Option<u64>) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("pool");
        let file = File::options().read(true).write(true).create_new(true).open(&path).unwrap();
        format(&file, bytes, [7; 32]).unwrap();
        if let Some(at) = damaged_at {
            file.write_all_at(b"x", at).unwrap();
        }
        match Command::new("btrfs").arg("check").arg(&path).output() {
            Ok(output) => {
                let said = String::from_utf8_lossy(&output.stderr) + String::from_utf8_lossy(&output.stdout);
                assert_eq!(output.status.success(), damaged_at.is_none(), "{bytes} bytes: {said}");
            }
            Err(error) if std::env::var_os("CI").is_some() => panic!("btrfs: {error}"),
            Err(error) => eprintln!("SKIPPED btrfs::check: btrfs: {error}"),
        }
    }

    #[test]
    fn the_pool_is_sound() {
        for bytes in [BYTES_MIN, 8 << 30, (64 << 30) + 12_345, 1 << 40] {
            check(bytes, None);
        }
        check(1 << 30, Some(block_of(FILE_TREE) + 200));
    }

    #[test]
    fn what_is_too_small_is_refused() {
        let file = tempfile::tempfile().unwrap();
        assert_eq!(format(&file, BYTES_MIN - 1, [7; 32]).unwrap_err().kind(), io::ErrorKind::InvalidInput);
    }
}
