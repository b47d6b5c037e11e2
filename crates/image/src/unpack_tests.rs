//! Whole images in every form, and what is wrong with them.

use super::*;
use crate::fixture::{self, directory, file, link};
use std::fs::File;
use std::io::Write as _;
use std::os::fd::AsFd as _;

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut out = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    out.write_all(bytes).unwrap();
    out.finish().unwrap()
}

fn zstd(bytes: &[u8]) -> Vec<u8> {
    zstd::encode_all(bytes, 3).unwrap()
}

fn plain(bytes: &[u8]) -> Vec<u8> {
    bytes.to_vec()
}

fn named(bytes: &[u8]) -> String {
    format!("sha256:{}", Digest::of(bytes))
}

fn descriptor(bytes: &[u8]) -> String {
    format!(r#"{{"mediaType":"x","digest":"{}","size":{}}}"#, named(bytes), bytes.len())
}

fn config(layers: &[Vec<u8>]) -> Vec<u8> {
    let diff_ids: Vec<String> = layers.iter().map(|layer| format!("{:?}", named(layer))).collect();
    let diff_ids = diff_ids.join(",");
    format!(
        r#"{{"architecture":"{}","os":"linux","rootfs":{{"type":"layers","diff_ids":[{diff_ids}]}},
        "config":{{"Env":["PATH=/opt/bin:/bin","A=b=c"],"User":"node","WorkingDir":"/app","Cmd":["sh"],"Labels":null}}}}"#,
        if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" },
    )
    .into_bytes()
}

fn layers() -> Vec<Vec<u8>> {
    vec![
        fixture::tar(&[directory("etc/"), file("etc/name", b"base")]),
        fixture::tar(&[directory("etc/"), file("etc/more", b"top"), file("etc/.wh.name", b"")]),
    ]
}

/// The parts of an OCI layout.
fn layout(layers: &[Vec<u8>], pack: fn(&[u8]) -> Vec<u8>) -> Vec<(String, Vec<u8>)> {
    let config = config(layers);
    let packed: Vec<Vec<u8>> = layers.iter().map(|layer| pack(layer)).collect();
    let list: Vec<String> = packed.iter().map(|layer| descriptor(layer)).collect();
    let manifest = format!(r#"{{"config":{},"layers":[{}]}}"#, descriptor(&config), list.join(",")).into_bytes();
    let index = format!(r#"{{"schemaVersion":2,"manifests":[{}]}}"#, descriptor(&manifest)).into_bytes();
    let mut parts = vec![
        ("oci-layout".to_owned(), br#"{"imageLayoutVersion":"1.0.0"}"#.to_vec()),
        ("index.json".to_owned(), index),
    ];
    for blob in packed.into_iter().chain([config, manifest]) {
        parts.push((format!("blobs/sha256/{}", Digest::of(&blob)), blob));
    }
    parts
}

/// The parts of what older `docker save` wrote.
fn saved(layers: &[Vec<u8>]) -> Vec<(String, Vec<u8>)> {
    let config = config(layers);
    let name = format!("{}.json", Digest::of(&config));
    let paths: Vec<String> = (0..layers.len()).map(|index| format!("\"{index:064}/layer.tar\"")).collect();
    let manifest = format!(r#"[{{"Config":"{name}","RepoTags":["a:b"],"Layers":[{}]}}]"#, paths.join(","));
    let mut parts = vec![(name, config), ("manifest.json".to_owned(), manifest.into_bytes())];
    parts.extend(layers.iter().enumerate().map(|(index, layer)| (format!("{index:064}/layer.tar"), layer.clone())));
    parts
}

fn as_tar(parts: &[(String, Vec<u8>)]) -> Vec<u8> {
    let entries: Vec<Vec<u8>> = parts.iter().map(|(name, bytes)| file(name, bytes)).collect();
    fixture::tar(&entries)
}

fn opened(bytes: &[u8]) -> OwnedFd {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(bytes).unwrap();
    file.into()
}

fn look(bytes: &[u8]) -> Result<Image, Error> {
    match perform(&Task::Look, opened(bytes), None)? {
        Done::Looked(image) => Ok(image),
        Done::Unpacked(_) => panic!("it was to look"),
    }
}

fn lay(bytes: &[u8], layer: &Layer, limits: Limits) -> Result<(tempfile::TempDir, Unpacked), Error> {
    let into = tempfile::tempdir().unwrap();
    let open = File::open(into.path()).unwrap();
    match perform(
        &Task::Unpack { layer: layer.clone(), limits, owners: Owners::One },
        opened(bytes),
        Some(open.as_fd()),
    )? {
        Done::Unpacked(unpacked) => Ok((into, unpacked)),
        Done::Looked(_) => panic!("it was to unpack"),
    }
}

#[test]
fn every_form_gives_the_same_layers() {
    let layers = layers();
    let both: Vec<(String, Vec<u8>)> = saved(&layers).into_iter().chain(layout(&layers, plain)).collect();
    let forms = [
        as_tar(&saved(&layers)),
        as_tar(&layout(&layers, plain)),
        as_tar(&layout(&layers, gzip)),
        as_tar(&layout(&layers, zstd)),
        as_tar(&both),
    ];
    for (index, bytes) in forms.iter().enumerate() {
        let image = look(bytes).unwrap();
        assert_eq!(image.config.environment.last().unwrap(), &("A".to_owned(), "b=c".to_owned()));
        assert_eq!((image.config.user.as_str(), image.config.workdir.as_str()), ("node", "/app"));
        let diff_ids: Vec<Digest> = image.layers.iter().map(|layer| layer.diff_id).collect();
        assert_eq!(diff_ids, [Digest::of(&layers[0]), Digest::of(&layers[1])], "form {index}");
        let (base, told) = lay(bytes, &image.layers[0], Limits::default()).unwrap();
        assert_eq!((told.entries, told.bytes), (2, layers[0].len() as u64));
        assert_eq!(std::fs::read_to_string(base.path().join("etc/name")).unwrap(), "base");
        let (top, _) = lay(bytes, &image.layers[1], Limits::default()).unwrap();
        assert_eq!(std::fs::read_to_string(top.path().join("etc/more")).unwrap(), "top");
    }
}

#[test]
fn a_directory_is_read_through_no_link() {
    let home = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(home.path().join("blobs/sha256")).unwrap();
    let parts = layout(&layers(), gzip);
    for (name, bytes) in &parts {
        std::fs::write(home.path().join(name), bytes).unwrap();
    }
    let look = || perform(&Task::Look, File::open(home.path()).unwrap().into(), None);
    assert!(matches!(look(), Ok(Done::Looked(image)) if image.layers.len() == 2));
    let (manifest, bytes) = parts.last().unwrap();
    std::fs::remove_file(home.path().join(manifest)).unwrap();
    let outside = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(outside.path(), bytes).unwrap();
    std::os::unix::fs::symlink(outside.path(), home.path().join(manifest)).unwrap();
    assert_eq!(look().unwrap_err().code(), "image_read");
}

#[test]
fn a_layer_that_comes_twice_may_be_a_link() {
    let layer = fixture::tar(&[file("a", b"a")]);
    let mut parts = saved(&[layer.clone(), layer]);
    let (name, _) = parts.pop().unwrap();
    let mut entries: Vec<Vec<u8>> = parts.iter().map(|(name, bytes)| file(name, bytes)).collect();
    entries.push(link(&name, &format!("../{:064}/layer.tar", 0)));
    let bytes = fixture::tar(&entries);
    let image = look(&bytes).unwrap();
    lay(&bytes, &image.layers[1], Limits::default()).unwrap();
}

fn changed(parts: &[(String, Vec<u8>)], name: &str, change: impl Fn(&mut Vec<u8>)) -> Vec<u8> {
    let mut parts = parts.to_vec();
    let part = parts.iter_mut().find(|(part, _)| part.contains(name)).unwrap();
    change(&mut part.1);
    as_tar(&parts)
}

/// What `code` says of an image that was unpacked whole.
const UNPACKED: &str = "";

/// The code that looking into an image, and then unpacking all of it, ends with.
fn code(bytes: &[u8]) -> &'static str {
    let unpacked = look(bytes)
        .and_then(|image| image.layers.iter().try_for_each(|layer| lay(bytes, layer, Limits::default()).map(drop)));
    unpacked.err().map_or(UNPACKED, |error| error.code())
}

#[test]
fn a_part_that_is_not_what_its_digest_says_is_refused() {
    let layers = layers();
    for pack in [plain, gzip, zstd] {
        let parts = layout(&layers, pack);
        assert_eq!(code(&as_tar(&parts)), UNPACKED);
        for (name, _) in parts.iter().filter(|(name, _)| name.starts_with("blobs/")) {
            for at in [0, 300] {
                let flip = |bytes: &mut Vec<u8>| {
                    let at = at % bytes.len();
                    bytes[at] ^= 1;
                };
                assert_eq!(code(&changed(&parts, name, flip)), "image_digest", "{name}");
            }
        }
    }
    let parts = saved(&layers);
    assert_eq!(code(&changed(&parts, "layer.tar", |layer| layer[1_024] ^= 1)), "image_digest");
    assert_eq!(code(&changed(&parts, "layer.tar", |layer| layer.extend([0; 512]))), "image_digest");
    let config = parts[0].0.clone();
    assert_eq!(code(&changed(&parts, &config, |config| config.push(b' '))), "image_digest");
}

#[test]
fn what_is_no_image_is_refused_with_a_reason() {
    let layers = layers();
    let parts = saved(&layers);
    let without =
        |name: &str| as_tar(&parts.iter().filter(|(part, _)| !part.contains(name)).cloned().collect::<Vec<_>>());
    let text = |name: &str, from: &str, to: &str| {
        let parts = layout(&layers, plain);
        changed(&parts, name, |bytes| *bytes = String::from_utf8_lossy(bytes).replace(from, to).into_bytes())
    };
    let rows = [
        ("empty", fixture::tar(&[]), "image_form"),
        ("compressed as a whole", gzip(&as_tar(&parts)), "image_form"),
        ("no list", without("manifest.json"), "image_form"),
        ("no configuration", without(".json"), "image_form"),
        ("a layer is missing", without(&format!("{:064}", 1)), "image_form"),
        ("no JSON", changed(&parts, "manifest.json", |bytes| *bytes = b"[{".to_vec()), "image_form"),
        (
            "two images",
            changed(&parts, "manifest.json", |bytes| {
                let one = String::from_utf8_lossy(&bytes[1..bytes.len() - 1]).into_owned();
                *bytes = format!("[{one},{one}]").into_bytes();
            }),
            "image_form",
        ),
        ("another algorithm", text("index.json", "sha256:", "sha512:"), "image_form"),
        ("a wrong size", text("index.json", "\"size\":", "\"size\":1"), "image_form"),
        ("a list in itself", text("index.json", "\"manifests\"", "\"none\""), "image_form"),
        ("a name that climbs", fixture::tar(&[file("../manifest.json", b"[]")]), "image_refused"),
        ("a name twice", fixture::tar(&[file("a", b""), file("a", b"")]), "image_refused"),
        ("a link out", fixture::tar(&[link("manifest.json", "../../etc/passwd")]), "image_refused"),
        ("cut", as_tar(&parts)[..2_000].to_vec(), "image_refused"),
        (
            "a device",
            fixture::tar(&[fixture::Header { flag: b'4', ..fixture::Header::file("a", 0) }.block().to_vec()]),
            "image_refused",
        ),
    ];
    for (name, bytes, expected) in rows {
        assert_eq!(code(&bytes), expected, "{name}");
    }
    let rounds = fixture::tar(&[link("manifest.json", "other"), link("other", "manifest.json")]);
    assert_eq!(code(&rounds), "image_form");
}

#[test]
fn bombs_end_at_their_bounds() {
    let many = fixture::tar(&(0..200).map(|index| file(&format!("f{index}"), b"")).collect::<Vec<_>>());
    let large = fixture::tar(&[file("zeros", &vec![0; 80 << 20])]);
    let small = Limits { bytes_max: 1 << 20, entries_max: 100, ratio_max: 200 };
    let rows = [
        ("entries", &many, gzip as fn(&[u8]) -> Vec<u8>, small, "too_many_entries"),
        ("bytes", &large, plain, small, "layer_bytes_max"),
        ("bytes in gzip", &large, gzip, small, "layer_bytes_max"),
        ("ratio of gzip", &large, gzip, Limits { ratio_max: 10, ..Limits::default() }, "layer_ratio_max"),
        ("ratio of zstd", &large, zstd, Limits::default(), "layer_ratio_max"),
    ];
    for (name, layer, pack, limits, expected) in rows {
        let bytes = as_tar(&layout(std::slice::from_ref(layer), pack));
        let image = look(&bytes).unwrap();
        let error = lay(&bytes, &image.layers[0], limits).unwrap_err();
        assert!(error.to_string().contains(expected), "{name}: {error}");
    }
}
