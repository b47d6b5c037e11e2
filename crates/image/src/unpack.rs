//! What is done in a process of its own: looking into an image, and unpacking one of its layers.

use crate::archive::{Archive, Blob};
use crate::config::Config;
use crate::image::{self, Layer};
use crate::{Error, layer};
use domain::Digest;
use flate2::bufread::MultiGzDecoder;
use ring::digest::{Context, SHA256};
use sandbox::Rule;
use serde::{Deserialize, Serialize};
use std::io::{self, BufRead as _, BufReader, Read};
use std::os::fd::{BorrowedFd, OwnedFd};

/// What is read at once.
const READ_BYTES: usize = 128 << 10;
/// What any layer may grow to, however small it was packed.
const GROWTH_FREE_BYTES: u64 = 64 << 20;
/// Memory that decompressing one layer may look back into, as a power of two.
const WINDOW_BITS_MAX: u32 = 27;

/// Bounds of one layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Bytes of its uncompressed archive.
    pub bytes_max: u64,
    /// Files, directories, links and whiteouts.
    pub entries_max: u64,
    /// How many times larger it may be than it was packed, above 64 MiB.
    pub ratio_max: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { bytes_max: 8 << 30, entries_max: 500_000, ratio_max: 200 }
    }
}

/// Whose the files of a layer become.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Owners {
    /// Everything is whose the process is that unpacks.
    #[default]
    One,
    /// Each file is whose the layer says, by number. Only for a process that may give files away.
    Several,
}

/// What is asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Task {
    /// What is in an image.
    Look,
    /// Unpacks one layer into an empty directory.
    Unpack {
        /// Which one.
        layer: Layer,
        /// Its bounds.
        limits: Limits,
        /// Whose its files become.
        owners: Owners,
    },
}

/// An image as it declares itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Image {
    /// Its layers, the lowest first.
    pub layers: Vec<Layer>,
    /// How its programs run.
    pub config: Config,
}

/// A layer that was unpacked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unpacked {
    /// Bytes of its uncompressed archive.
    pub bytes: u64,
    /// Files, directories, links and whiteouts.
    pub entries: u64,
    /// Whether nothing under it is to be seen at all.
    pub opaque: bool,
}

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Done {
    /// Of [`Task::Look`].
    Looked(Image),
    /// Of [`Task::Unpack`].
    Unpacked(Unpacked),
}

/// Performs `task` on the image that is open at `source`: a file or a directory. A layer is unpacked into `into`, and what is
/// there when it returns is durable; after an error there may be anything.
///
/// # Errors
/// All but [`Error::Cache`].
pub fn perform(task: &Task, source: OwnedFd, into: Option<BorrowedFd<'_>>) -> Result<Done, Error> {
    let archive = Archive::open(source)?;
    match (task, into) {
        (Task::Look, _) => {
            let declared = image::declared(&archive)?;
            Ok(Done::Looked(Image { layers: declared.layers, config: declared.config }))
        }
        (Task::Unpack { layer, limits, owners }, Some(into)) => {
            unpack(&archive, layer, *limits, into, *owners).map(Done::Unpacked)
        }
        (Task::Unpack { .. }, None) => Err(Error::Unpack { detail: "no directory was given".to_owned() }),
    }
}

fn unpack(
    archive: &Archive,
    layer: &Layer,
    limits: Limits,
    into: BorrowedFd<'_>,
    owners: Owners,
) -> Result<Unpacked, Error> {
    // What is not what its digest says is not even decompressed.
    if let Some(expected) = layer.digest {
        image::hold(&format!("the layer `{}`", layer.name), expected, digest_of(archive.blob(&layer.name)?)?)?;
    }
    let blob = archive.blob(&layer.name)?;
    let packed = blob.left();
    let grown_max = packed.saturating_mul(limits.ratio_max).max(GROWTH_FREE_BYTES);
    let bounds = [
        (limits.bytes_max, format!("layer_bytes_max = {}", limits.bytes_max)),
        (grown_max, format!("layer_ratio_max = {}", limits.ratio_max)),
    ];
    let mut source = Measured { inner: decoder(blob)?, hash: Context::new(&SHA256), bytes: 0, bounds };
    let totals = layer::unpack(&mut source, into, limits.entries_max, owners)?;
    drain(&mut source)?;
    let mut found = Digest::ZERO;
    found.0.copy_from_slice(source.hash.finish().as_ref());
    image::hold(&format!("the unpacked layer `{}`", layer.name), layer.diff_id, found)?;
    Ok(Unpacked { bytes: source.bytes, entries: totals.entries, opaque: totals.opaque })
}

fn digest_of(mut blob: Blob) -> Result<Digest, Error> {
    let mut hash = Context::new(&SHA256);
    let mut buffer = vec![0; READ_BYTES];
    loop {
        match blob.read(&mut buffer).map_err(|error| Error::of_source(&error))? {
            0 => break,
            length => hash.update(&buffer[..length]),
        }
    }
    let mut found = Digest::ZERO;
    found.0.copy_from_slice(hash.finish().as_ref());
    Ok(found)
}

/// Uncompressed bytes of a layer, by how it begins: whatever it is said to be, it can be only one of these.
fn decoder(blob: Blob) -> Result<Box<dyn Read>, Error> {
    let mut source = BufReader::with_capacity(READ_BYTES, blob);
    let start = source.fill_buf().map_err(|error| Error::of_source(&error))?;
    if start.starts_with(&[0x1f, 0x8b]) {
        return Ok(Box::new(MultiGzDecoder::new(source)));
    }
    if start.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]) {
        let mut decoder = zstd::stream::read::Decoder::with_buffer(source).map_err(|error| Error::of_source(&error))?;
        decoder.window_log_max(WINDOW_BITS_MAX).map_err(|error| Error::of_source(&error))?;
        return Ok(Box::new(decoder));
    }
    Ok(Box::new(source))
}

/// Counts, bounds and hashes what is read.
struct Measured {
    inner: Box<dyn Read>,
    hash: Context,
    bytes: u64,
    bounds: [(u64, String); 2],
}

impl Read for Measured {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.inner.read(buffer)?;
        self.hash.update(&buffer[..length]);
        self.bytes += length as u64;
        match self.bounds.iter().find(|(bytes_max, _)| self.bytes > *bytes_max) {
            Some((_, limit)) => Err(io::Error::other(Error::Limit { limit: limit.clone() })),
            None => Ok(length),
        }
    }
}

/// Reads what follows the archive's end, which may only fill up.
fn drain(source: &mut Measured) -> Result<(), Error> {
    let mut buffer = vec![0; READ_BYTES];
    loop {
        match source.read(&mut buffer).map_err(|error| Error::of_source(&error))? {
            0 => return Ok(()),
            length if buffer[..length].iter().all(|byte| *byte == 0) => {}
            _ => return Err(Error::Refused { rule: Rule::Malformed, entry: "the layer's end".to_owned() }),
        }
    }
}

#[cfg(test)]
#[path = "unpack_tests.rs"]
mod tests;
