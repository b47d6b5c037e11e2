//! Writes an empty ext4 file system into a sparse file: superblock, group descriptors, bitmaps and a root directory, nothing
//! else. A workspace then has a bound that the kernel itself enforces, in bytes and in inodes.
//!
//! Why not `mkfs.ext4`: it need not be installed, takes 20 ms, and knows no exact number of inodes. As the file is sparse,
//! the inode tables are zero without being written; a 1 GiB image takes about 100 KiB. There is no journal: nothing waits
//! for one at the start, and what a host's crash may break is one session's scratch, which its checkpoints bring back.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;

const BLOCK: u64 = 4_096;
const BLOCKS_PER_GROUP: u64 = 8 * BLOCK;
const INODE_BYTES: u64 = 256;
const INODES_PER_BLOCK: u64 = BLOCK / INODE_BYTES;
const DESCRIPTOR_BYTES: u64 = 32;
/// Inodes 1 to 10 are reserved by the format.
const INODES_RESERVED: u64 = 10;

/// Where everything stands.
struct Layout {
    blocks: u64,
    groups: u64,
    inodes_per_group: u64,
}

impl Layout {
    /// Room for `bytes` of content and `inodes` files, the file system's own tables on top.
    fn of(bytes: u64, inodes: u64) -> Self {
        let mut blocks = bytes.div_ceil(BLOCK).max(16);
        loop {
            let groups = blocks.div_ceil(BLOCKS_PER_GROUP);
            let per_group =
                (inodes + INODES_RESERVED).div_ceil(groups).next_multiple_of(INODES_PER_BLOCK).min(BLOCKS_PER_GROUP);
            let layout = Self { blocks, groups, inodes_per_group: per_group };
            let own: u64 = (0..groups).map(|group| layout.own_blocks(group)).sum();
            // The last group must hold at least its own tables and one block.
            let last = blocks - (groups - 1) * BLOCKS_PER_GROUP;
            let missing = (bytes.div_ceil(BLOCK) + own + 1).saturating_sub(blocks);
            let short = (layout.own_blocks(groups - 1) + 1).saturating_sub(last);
            match missing.max(short) {
                0 => return layout,
                more => blocks += more,
            }
        }
    }

    fn descriptor_blocks(&self) -> u64 {
        (self.groups * DESCRIPTOR_BYTES).div_ceil(BLOCK)
    }

    fn table_blocks(&self) -> u64 {
        self.inodes_per_group / INODES_PER_BLOCK
    }

    /// Superblock and descriptors stand in group 0, 1 and the powers of 3, 5 and 7.
    fn has_super(group: u64) -> bool {
        let power = |base: u64| {
            std::iter::successors(Some(base), |value| value.checked_mul(base))
                .take_while(|value| *value <= group)
                .any(|value| value == group)
        };
        group <= 1 || power(3) || power(5) || power(7)
    }

    /// Blocks before the bitmaps.
    fn head_blocks(&self, group: u64) -> u64 {
        if Self::has_super(group) { 1 + self.descriptor_blocks() } else { 0 }
    }

    /// Blocks of a group that its tables take.
    fn own_blocks(&self, group: u64) -> u64 {
        self.head_blocks(group) + 2 + self.table_blocks()
    }

    fn blocks_in(&self, group: u64) -> u64 {
        (self.blocks - group * BLOCKS_PER_GROUP).min(BLOCKS_PER_GROUP)
    }

    /// Blocks in use: the tables, and in group 0 the root directory's one.
    fn used_in(&self, group: u64) -> u64 {
        self.own_blocks(group) + u64::from(group == 0)
    }

    fn root_block(&self) -> u64 {
        self.own_blocks(0)
    }
}

/// What an image for content of `bytes` and `inodes` takes at most.
pub(crate) fn bytes(bytes: u64, inodes: u64) -> u64 {
    Layout::of(bytes, inodes).blocks * BLOCK
}

const SUPER_AT: u64 = 1_024;
const STATE: u64 = 0x3a;
const CLEAN: u16 = 1;
const IDENTITY: u64 = 0x68;

/// Gives the copy of an image that was at rest another identity, and says that it is clean. What hashes its directories
/// stays.
pub(crate) fn rename(file: &File, seed: [u8; 32]) -> io::Result<()> {
    set_clean(file)?;
    file.write_all_at(&seed[..16], SUPER_AT + IDENTITY)
}

/// Says of the copy of an image that was at rest that it is clean: the original is in use, which is what it says of itself.
pub(crate) fn set_clean(file: &File) -> io::Result<()> {
    file.write_all_at(&CLEAN.to_le_bytes(), SUPER_AT + STATE)
}

/// Formats `file`, which must be new and empty, for content of `bytes` and `inodes`, its root directory owned by `owner`.
/// `seed` makes identity and directory hashes.
pub(crate) fn format(file: &File, bytes: u64, inodes: u64, owner: u32, seed: [u8; 32]) -> io::Result<()> {
    let layout = Layout::of(bytes, inodes);
    file.set_len(layout.blocks * BLOCK)?;
    let descriptors = descriptors(&layout);
    for group in 0..layout.groups {
        let start = group * BLOCKS_PER_GROUP;
        if Layout::has_super(group) {
            let offset = if group == 0 { 1_024 } else { start * BLOCK };
            file.write_all_at(&superblock(&layout, group, seed), offset)?;
            file.write_all_at(&descriptors, (start + 1) * BLOCK)?;
        }
        let bitmaps = start + layout.head_blocks(group);
        let blocks = bitmap(layout.used_in(group), layout.blocks_in(group));
        file.write_all_at(&blocks, bitmaps * BLOCK)?;
        let inodes = bitmap(if group == 0 { INODES_RESERVED } else { 0 }, layout.inodes_per_group);
        file.write_all_at(&inodes, (bitmaps + 1) * BLOCK)?;
    }
    let table = layout.head_blocks(0) + 2;
    file.write_all_at(&root_inode(&layout, owner), table * BLOCK + INODE_BYTES)?;
    file.write_all_at(&root_directory(), layout.root_block() * BLOCK)
}

fn put(to: &mut [u8], at: usize, bytes: &[u8]) {
    to[at..at + bytes.len()].copy_from_slice(bytes);
}

fn put32(to: &mut [u8], at: usize, value: u64) {
    put(to, at, &u32::try_from(value).unwrap_or(u32::MAX).to_le_bytes());
}

fn put16(to: &mut [u8], at: usize, value: u64) {
    put(to, at, &u16::try_from(value).unwrap_or(u16::MAX).to_le_bytes());
}

/// The first `used` bits set, and all past `valid`.
fn bitmap(used: u64, valid: u64) -> Vec<u8> {
    let mut bytes = vec![0; 4_096];
    set_bits(&mut bytes, 0, used);
    set_bits(&mut bytes, valid, BLOCKS_PER_GROUP);
    bytes
}

fn set_bits(bytes: &mut [u8], from: u64, to: u64) {
    let below = |bits: u64| u8::try_from((1_u64 << bits) - 1).unwrap_or(u8::MAX);
    for (index, byte) in (0..).zip(bytes) {
        let (first, last) = (index * 8, index * 8 + 8);
        if first < to && from < last {
            *byte |= below(to.min(last) - first) & !below(from.max(first) - first);
        }
    }
}

fn descriptors(layout: &Layout) -> Vec<u8> {
    let mut out = Vec::new();
    for group in 0..layout.groups {
        let bitmaps = group * BLOCKS_PER_GROUP + layout.head_blocks(group);
        let mut one = [0; 32];
        put32(&mut one, 0x0, bitmaps);
        put32(&mut one, 0x4, bitmaps + 1);
        put32(&mut one, 0x8, bitmaps + 2);
        put16(&mut one, 0xc, layout.blocks_in(group) - layout.used_in(group));
        put16(&mut one, 0xe, layout.inodes_per_group - if group == 0 { INODES_RESERVED } else { 0 });
        put16(&mut one, 0x10, u64::from(group == 0));
        out.extend_from_slice(&one);
    }
    out
}

fn superblock(layout: &Layout, group: u64, seed: [u8; 32]) -> [u8; 1_024] {
    let used: u64 = (0..layout.groups).map(|group| layout.used_in(group)).sum();
    let inodes = layout.groups * layout.inodes_per_group;
    let mut out = [0; 1_024];
    put32(&mut out, 0x0, inodes);
    put32(&mut out, 0x4, layout.blocks);
    put32(&mut out, 0xc, layout.blocks - used);
    put32(&mut out, 0x10, inodes - INODES_RESERVED);
    put32(&mut out, 0x18, 2); // blocks of 1024 << 2 bytes
    put32(&mut out, 0x1c, 2);
    put32(&mut out, 0x20, BLOCKS_PER_GROUP);
    put32(&mut out, 0x24, BLOCKS_PER_GROUP);
    put32(&mut out, 0x28, layout.inodes_per_group);
    put16(&mut out, 0x36, 0xffff); // never ask for a check by count
    put16(&mut out, 0x38, 0xef53);
    put16(&mut out, 0x3a, 1); // clean
    put16(&mut out, 0x3c, 2); // on errors: read-only
    put32(&mut out, 0x4c, 1); // dynamic inode sizes
    put32(&mut out, 0x54, INODES_RESERVED + 1);
    put16(&mut out, 0x58, INODE_BYTES);
    put16(&mut out, 0x5a, group);
    put32(&mut out, 0x5c, 0x8 | 0x20); // extended attributes, hashed directories
    put32(&mut out, 0x60, 0x2 | 0x40); // types in directories, extents
    put32(&mut out, 0x64, 0x1 | 0x2 | 0x8 | 0x20 | 0x40); // sparse superblocks, large and huge files, many links, extra fields
    put(&mut out, 0x68, &seed[..16]);
    put(&mut out, 0xec, &seed[16..]);
    out[0xfc] = 1; // directory hash: half MD4
    put16(&mut out, 0x15c, 32);
    put16(&mut out, 0x15e, 32);
    put32(&mut out, 0x160, 1); // the hash treats bytes as signed, as on x86
    out
}

fn root_inode(layout: &Layout, owner: u32) -> [u8; 256] {
    let mut out = [0; 256];
    put16(&mut out, 0x0, 0o040_755);
    put16(&mut out, 0x2, u64::from(owner & 0xffff));
    put32(&mut out, 0x4, BLOCK);
    put16(&mut out, 0x18, u64::from(owner & 0xffff));
    put16(&mut out, 0x1a, 2);
    put32(&mut out, 0x1c, BLOCK / 512);
    put32(&mut out, 0x20, 0x8_0000); // its blocks are extents
    let extents = 0x28;
    put16(&mut out, extents, 0xf30a);
    put16(&mut out, extents + 2, 1);
    put16(&mut out, extents + 4, 4);
    put16(&mut out, extents + 16, 1);
    put32(&mut out, extents + 20, layout.root_block());
    put16(&mut out, 0x78, u64::from(owner >> 16));
    put16(&mut out, 0x7a, u64::from(owner >> 16));
    put16(&mut out, 0x80, 32);
    out
}

fn root_directory() -> Vec<u8> {
    let mut out = vec![0; 4_096];
    let mut entry = |at: usize, length: u64, name: &[u8]| {
        put32(&mut out, at, 2);
        put16(&mut out, at + 4, length);
        out[at + 6] = u8::try_from(name.len()).unwrap_or(0);
        out[at + 7] = 2; // a directory
        put(&mut out, at + 8, name);
    };
    entry(0, 12, b".");
    entry(12, BLOCK - 12, b"..");
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    /// The format's own checker must find nothing to say.
    fn check(bytes: u64, inodes: u64) {
        let path = std::env::temp_dir().join(format!("topside-ext4-{}-{bytes}-{inodes}", std::process::id()));
        let file = File::options().read(true).write(true).create_new(true).open(&path).unwrap();
        format(&file, bytes, inodes, 1_000, [7; 32]).unwrap();
        let checked = Command::new("e2fsck").arg("-fn").arg(&path).output();
        std::fs::remove_file(&path).unwrap();
        match checked {
            Ok(output) => {
                let said = String::from_utf8_lossy(&output.stdout);
                assert!(output.status.success(), "{bytes} bytes, {inodes} inodes: {said}");
            }
            Err(error) if std::env::var_os("CI").is_some() => panic!("e2fsck: {error}"),
            Err(error) => eprintln!("SKIPPED ext4::check: e2fsck: {error}"),
        }
    }

    #[test]
    fn the_image_is_sound() {
        check(1 << 20, 10);
        check(64 << 20, 5_000);
        check(1 << 30, 200_000);
        check((1 << 30) - (40 << 20), 7);
        check(10 << 30, 1_000_000);
    }
}
