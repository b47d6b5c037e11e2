//! Which layers an image has and in which order: the forms in which `docker save` has written images, and OCI layouts. Every
//! part that is named by a digest is held to it.

use crate::Error;
use crate::archive::Archive;
use crate::config::{Config, Written};
use domain::Digest;
use serde::{Deserialize, Serialize};

/// Layers of an image at most; all are mounted over each other.
const LAYERS_MAX: usize = 100;
/// How deep lists of images may lie in lists.
const LISTS_DEPTH_MAX: usize = 3;

/// One layer as an image names it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Layer {
    /// Digest of its uncompressed archive.
    pub diff_id: Digest,
    /// Where it lies in the image.
    pub(crate) name: String,
    /// Digest of it as it lies there, when the image says one.
    pub(crate) digest: Option<Digest>,
}

/// What an image declares.
#[derive(Debug)]
pub(crate) struct Declared {
    /// The lowest first.
    pub(crate) layers: Vec<Layer>,
    pub(crate) config: Config,
}

#[derive(Deserialize)]
struct SavedImage {
    #[serde(rename = "Config")]
    config: String,
    #[serde(rename = "Layers")]
    layers: Vec<String>,
}

#[derive(Clone, Debug, Deserialize)]
struct Descriptor {
    digest: String,
    size: u64,
    platform: Option<Platform>,
}

#[derive(Clone, Debug, Deserialize)]
struct Platform {
    os: String,
    architecture: String,
}

/// A list of images, or an image: which one, its fields say.
#[derive(Deserialize)]
struct Document {
    manifests: Option<Vec<Descriptor>>,
    config: Option<Descriptor>,
    layers: Option<Vec<Descriptor>>,
}

#[derive(Deserialize)]
struct ImageConfig {
    os: Option<String>,
    architecture: Option<String>,
    #[serde(default)]
    config: Option<Written>,
    rootfs: RootFs,
}

#[derive(Deserialize)]
struct RootFs {
    diff_ids: Vec<String>,
}

/// What the image in `archive` declares.
pub(crate) fn declared(archive: &Archive) -> Result<Declared, Error> {
    if archive.has("index.json") {
        return layout(archive, archive.text("index.json")?, 0);
    }
    if archive.has("manifest.json") {
        return saved(archive);
    }
    Err(Error::form(
        "it has neither `index.json` nor `manifest.json`; expected what `docker save` writes, or an OCI layout",
    ))
}

fn json<T: for<'de> Deserialize<'de>>(text: &[u8], what: &str) -> Result<T, Error> {
    serde_json::from_slice(text).map_err(|error| {
        let detail: String = error.to_string().chars().take(200).flat_map(char::escape_debug).collect();
        Error::form(format!("{what}: {detail}"))
    })
}

fn digest(text: &str) -> Result<Digest, Error> {
    let refused = || Error::form(format!("`{}` is no SHA-256 digest", crate::path::shown(text.as_bytes())));
    text.strip_prefix("sha256:").and_then(|hex| hex.parse().ok()).ok_or_else(refused)
}

pub(crate) fn hold(part: &str, expected: Digest, found: Digest) -> Result<(), Error> {
    if expected == found {
        return Ok(());
    }
    Err(Error::Digest { part: part.to_owned(), expected: expected.to_string(), found: found.to_string() })
}

fn blob_name(digest: Digest) -> String {
    format!("blobs/sha256/{digest}")
}

/// A part named by a descriptor, held to its digest and size.
fn described(archive: &Archive, descriptor: &Descriptor, what: &str) -> Result<Vec<u8>, Error> {
    let expected = digest(&descriptor.digest)?;
    let text = archive.text(&blob_name(expected))?;
    if text.len() as u64 != descriptor.size {
        return Err(Error::form(format!("{what} has {} bytes, not {}", text.len(), descriptor.size)));
    }
    hold(what, expected, Digest::of(&text))?;
    Ok(text)
}

/// What the kernel here is called in images.
const fn architecture() -> &'static str {
    if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" }
}

fn layout(archive: &Archive, text: Vec<u8>, depth: usize) -> Result<Declared, Error> {
    let document: Document = json(&text, "a list of images")?;
    match document {
        Document { manifests: Some(manifests), .. } if depth < LISTS_DEPTH_MAX => {
            let chosen = choose(manifests)?;
            layout(archive, described(archive, &chosen, "a list of images")?, depth + 1)
        }
        Document { config: Some(config), layers: Some(layers), .. } => {
            let config = described(archive, &config, "the image's configuration")?;
            let layers = layers.iter().map(|layer| {
                let digest = digest(&layer.digest)?;
                let name = blob_name(digest);
                let bytes = archive.blob(&name)?.left();
                if bytes != layer.size {
                    return Err(Error::form(format!("the layer {digest} has {bytes} bytes, not {}", layer.size)));
                }
                Ok((name, Some(digest)))
            });
            assemble(&config, layers.collect::<Result<_, Error>>()?)
        }
        _ => Err(Error::form("expected an image with `config` and `layers`")),
    }
}

/// The one image for this machine.
fn choose(mut manifests: Vec<Descriptor>) -> Result<Descriptor, Error> {
    // One image under several names is one.
    manifests.sort_by(|one, other| one.digest.cmp(&other.digest));
    manifests.dedup_by(|one, other| one.digest == other.digest);
    let fits = |descriptor: &Descriptor| {
        descriptor.platform.as_ref().is_none_or(|it| it.os == "linux" && it.architecture == architecture())
    };
    manifests.retain(fits);
    match manifests.as_slice() {
        [one] => Ok(one.clone()),
        [] => Err(Error::form(format!("it has no image for linux/{}", architecture()))),
        _ => Err(Error::form("it has several images; expected one; hint: save one alone")),
    }
}

/// The form that `docker save` wrote before it wrote layouts, and still writes beside them.
fn saved(archive: &Archive) -> Result<Declared, Error> {
    let images: Vec<SavedImage> = json(&archive.text("manifest.json")?, "`manifest.json`")?;
    let [image] = images.as_slice() else {
        return Err(Error::form(format!("it has {} images; expected one; hint: save one alone", images.len())));
    };
    let config = archive.text(&image.config)?;
    // Its name is its digest.
    let named = image.config.rsplit('/').next().unwrap_or_default().trim_end_matches(".json");
    if let Ok(expected) = named.parse::<Digest>() {
        hold("the image's configuration", expected, Digest::of(&config))?;
    }
    let layers = image.layers.iter().map(|name| {
        let digest = name.strip_prefix("blobs/sha256/").and_then(|hex| hex.parse().ok());
        (name.clone(), digest)
    });
    assemble(&config, layers.collect())
}

fn assemble(config: &[u8], layers: Vec<(String, Option<Digest>)>) -> Result<Declared, Error> {
    let config: ImageConfig = json(config, "the image's configuration")?;
    let is = |found: &Option<String>, expected: &str| {
        found.as_deref().is_none_or(|found| found.is_empty() || found == expected)
    };
    if !is(&config.os, "linux") || !is(&config.architecture, architecture()) {
        return Err(Error::form(format!("it is for another machine; expected linux/{}", architecture())));
    }
    if layers.len() > LAYERS_MAX {
        return Err(Error::Limit { limit: format!("image_layers_max = {LAYERS_MAX}") });
    }
    let diff_ids = &config.rootfs.diff_ids;
    if layers.is_empty() || diff_ids.len() != layers.len() {
        return Err(Error::form(format!("it has {} layers and {} digests of them", layers.len(), diff_ids.len())));
    }
    let layers = layers
        .into_iter()
        .zip(diff_ids)
        .map(|((name, packed), diff_id)| Ok(Layer { diff_id: digest(diff_id)?, name, digest: packed }));
    Ok(Declared {
        layers: layers.collect::<Result<_, Error>>()?,
        config: Config::read(config.config.unwrap_or_default())?,
    })
}
