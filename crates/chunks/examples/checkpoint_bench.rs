//! Measures checkpoints in chunks over a local directory: a large file, a tree of small files, and the tree again with a few
//! files changed; cut where files begin and end, and beside it cut by content alone. Prints figures and judges none.

use blob::{Blobs, Links};
use bytes::Bytes;
use chunks::{Chunks, Config, Parts, SameKey, Stored};
use futures::{StreamExt, stream};
use std::sync::Arc;
use std::time::Duration;
use stdx::{Clock, Random};

type Failure = Box<dyn std::error::Error>;

const FILES: u64 = 10_000;
const CHANGED: u64 = 50;
const BYTES_MAX: u64 = 4 << 30;
const BLOCK: usize = 512;

struct Bench {
    chunks: Chunks,
    clock: Clock,
    rounds: usize,
}

fn main() -> Result<(), Failure> {
    let rounds = std::env::args().nth(1).map_or(Ok(5), |rounds| rounds.parse())?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let data = std::env::temp_dir().join(format!("topside-chunks-bench-{}", std::process::id()));
    let clock = Clock::system();
    let blobs = Blobs::local(&data, Links::new(&[0; 32], clock.clone()))?;
    let parts = Parts { blobs, keys: Arc::new(SameKey([1; 32])), clock: clock.clone(), random: Random::system() };
    let bench = Bench { chunks: Chunks::new(parts, Config::default()), clock, rounds };
    let measured = runtime.block_on(measure(&bench));
    std::fs::remove_dir_all(&data)?;
    measured
}

async fn measure(bench: &Bench) -> Result<(), Failure> {
    bench.first("256 MiB that do not compress", &|round| noise(round, 256 << 20)).await?;
    bench.first("256 MiB of text", &|round| text(round, 256 << 20)).await?;
    for (name, magic) in [("cut at files", b"ustar"), ("by content alone", b"other")] {
        let tree = |round| tar(magic, round, 0);
        bench.first(&format!("{FILES} files, {name}"), &tree).await?;
        let (mut puts, mut gets, mut last) = (Vec::new(), Vec::new(), None);
        for round in 0..bench.rounds as u64 {
            let (_, base, _) = bench.put(&tree(round + 100), None).await?;
            let (took, key, stored) = bench.put(&tar(magic, round + 100, CHANGED), Some(base)).await?;
            puts.push(took);
            gets.push(bench.get(&key, &stored).await?);
            last = Some(stored);
        }
        show(&format!("{CHANGED} files changed, {name}: put"), puts, last);
        show(&format!("{CHANGED} files changed, {name}: get"), gets, None);
    }
    Ok(())
}

impl Bench {
    async fn first(&self, name: &str, archive: &dyn Fn(u64) -> Vec<u8>) -> Result<(), Failure> {
        let (mut puts, mut gets, mut last) = (Vec::new(), Vec::new(), None);
        for round in 0..self.rounds as u64 {
            let (took, key, stored) = self.put(&archive(round), None).await?;
            puts.push(took);
            gets.push(self.get(&key, &stored).await?);
            last = Some(stored);
        }
        show(&format!("{name}: put"), puts, last);
        show(&format!("{name}: get"), gets, last);
        Ok(())
    }

    async fn put(&self, archive: &[u8], base: Option<blob::Key>) -> Result<(Duration, blob::Key, Stored), Failure> {
        let name = hex::encode(Random::system().bytes::<16>());
        let key: blob::Key = format!("checkpoints/bench/{name}.chunks").parse()?;
        let pieces: Vec<_> = archive.chunks(65_536).map(|piece| Ok(Bytes::copy_from_slice(piece))).collect();
        let bases: Vec<_> = base.into_iter().collect();
        let started = self.clock.monotonic();
        let stored = self.chunks.put("bench", &key, &bases, stream::iter(pieces), BYTES_MAX).await?;
        Ok((self.clock.monotonic() - started, key, stored))
    }

    async fn get(&self, key: &blob::Key, stored: &Stored) -> Result<Duration, Failure> {
        let started = self.clock.monotonic();
        let mut archive = self.chunks.get("bench", key, stored.digest, BYTES_MAX).await?;
        while let Some(piece) = archive.pieces.next().await {
            std::hint::black_box(piece?);
        }
        Ok(self.clock.monotonic() - started)
    }
}

fn noise(seed: u64, bytes: usize) -> Vec<u8> {
    let random = Random::seeded(seed);
    let mut out = Vec::with_capacity(bytes + 64);
    while out.len() < bytes {
        out.extend(random.bytes::<64>());
    }
    out.truncate(bytes);
    out
}

/// Words in lines: compresses about as source code does.
fn text(seed: u64, bytes: usize) -> Vec<u8> {
    let random = Random::seeded(seed);
    let mut out = Vec::with_capacity(bytes + 64);
    while out.len() < bytes {
        let [a, b, c, d] = random.bytes::<4>();
        out.extend(format!("    let value_{} = call_{}(field.{}, {d});\n", a % 50, b % 80, c % 30).into_bytes());
    }
    out.truncate(bytes);
    out
}

/// A tree as an export writes it: extended headers with times, headers, data; sizes as those of source files.
fn tar(magic: &[u8; 5], seed: u64, changed: u64) -> Vec<u8> {
    let sizes = Random::seeded(seed);
    let mut out = Vec::new();
    for n in 0..FILES {
        let bytes = sizes.below(2_000) + sizes.below(10) * sizes.below(1_600);
        let is_changed = changed > 0 && n % (FILES / changed) == 7;
        let (content, time) = if is_changed { (seed + n + 1_000_000, n + 500_000) } else { (seed + n, n) };
        let data = text(content, usize::try_from(bytes).unwrap_or(0));
        let extended = format!("30 mtime=1700000000.{time:09}\n");
        header(&mut out, magic, "pax_header", b'x', extended.as_bytes());
        header(&mut out, magic, &format!("src/module_{}/part_{n}.rs", n % 200), b'0', &data);
    }
    out.resize(out.len() + 2 * BLOCK, 0);
    out
}

fn header(out: &mut Vec<u8>, magic: &[u8; 5], name: &str, flag: u8, data: &[u8]) {
    let mut block = [0; BLOCK];
    block[..name.len()].copy_from_slice(name.as_bytes());
    block[124..136].copy_from_slice(format!("{:011o}\0", data.len()).as_bytes());
    block[156] = flag;
    block[257..262].copy_from_slice(magic);
    out.extend(block);
    out.extend(data);
    out.resize(out.len().next_multiple_of(BLOCK), 0);
}

#[expect(clippy::print_stdout, reason = "the figures are what this program is for")]
fn show(what: &str, mut times: Vec<Duration>, stored: Option<Stored>) {
    times.sort();
    let median = times.get(times.len() / 2).copied().unwrap_or_default().as_secs_f64();
    let least = times.first().copied().unwrap_or_default().as_secs_f64();
    print!("{what:<48} median {:8.1} ms  min {:8.1} ms  n {}", median * 1e3, least * 1e3, times.len());
    if let Some(Stored { bytes, chunks, added_chunks, added_bytes, added_objects, .. }) = stored {
        let speed = format!("{:6.0} MB/s", 1e-6 * bytes as f64 / median);
        let mean = bytes / chunks.max(1);
        print!(
            "  {speed}  {bytes} bytes in {chunks} chunks of {mean}; stored {added_bytes} bytes, {added_chunks} chunks, {added_objects} objects"
        );
    }
    println!();
}
