//! Makes what roots are made of: tars, images in each form, and a whole Debian where one can be had.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// One entry of a layer: a path, ending in `/` for a directory, with what stands there.
pub(crate) enum Entry<'a> {
    Directory,
    File(&'a [u8], u32),
    Link(&'a str),
    Hard(&'a str),
    Device,
}

/// A tar of entries, as other programs write one.
pub(crate) fn tar(entries: &[(&str, Entry<'_>)]) -> Vec<u8> {
    let mut out = Vec::new();
    for (path, entry) in entries {
        let (flag, mode, content, to) = match entry {
            Entry::Directory => (b'5', 0o755, &b""[..], ""),
            Entry::File(content, mode) => (b'0', *mode, *content, ""),
            Entry::Link(to) => (b'2', 0o777, &b""[..], *to),
            Entry::Hard(to) => (b'1', 0o644, &b""[..], *to),
            Entry::Device => (b'3', 0o666, &b""[..], ""),
        };
        let mut block = [0_u8; 512];
        let mut put = |at: usize, value: &[u8]| block[at..at + value.len()].copy_from_slice(value);
        put(0, path.as_bytes());
        put(100, format!("{mode:07o}\0").as_bytes());
        put(108, b"0000000\x000000000\0");
        put(124, format!("{:011o}\0", content.len()).as_bytes());
        put(136, b"14524770000\0");
        put(148, b"        ");
        put(156, &[flag]);
        put(157, to.as_bytes());
        put(257, b"ustar\x0000");
        let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
        block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        out.extend_from_slice(&block);
        out.extend_from_slice(content);
        out.resize(out.len().next_multiple_of(512), 0);
    }
    out.resize(out.len() + 1_024, 0);
    out
}

/// The same tar, with these entries somebody else's.
pub(crate) fn owned(mut tar: Vec<u8>, owners: &[(&str, (u32, u32))]) -> Vec<u8> {
    for (path, (user, group)) in owners {
        let start = format!("{path}\0");
        let at = tar.chunks(512).position(|block| block.starts_with(start.as_bytes())).unwrap() * 512;
        let block = &mut tar[at..at + 512];
        block[108..124].copy_from_slice(format!("{user:07o}\0{group:07o}\0").as_bytes());
        block[148..156].copy_from_slice(b"        ");
        let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
        block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    }
    tar
}

fn digest(bytes: &[u8]) -> String {
    domain::Digest::of(bytes).to_string()
}

fn config(layers: &[Vec<u8>], settings: &str) -> Vec<u8> {
    let diff_ids: Vec<String> = layers.iter().map(|layer| format!("\"sha256:{}\"", digest(layer))).collect();
    let architecture = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
    let diff_ids = diff_ids.join(",");
    format!(
        r#"{{"architecture":"{architecture}","os":"linux","config":{settings},"rootfs":{{"type":"layers","diff_ids":[{diff_ids}]}}}}"#
    )
    .into_bytes()
}

/// What older `docker save` wrote.
pub(crate) fn saved(layers: &[Vec<u8>], settings: &str) -> Vec<u8> {
    let config = config(layers, settings);
    let name = format!("{}.json", digest(&config));
    let paths: Vec<String> = (0..layers.len()).map(|index| format!("{index:064}/layer.tar")).collect();
    let listed: Vec<String> = paths.iter().map(|path| format!("{path:?}")).collect();
    let manifest = format!(r#"[{{"Config":"{name}","RepoTags":["a:b"],"Layers":[{}]}}]"#, listed.join(","));
    let mut parts: Vec<(&str, Entry<'_>)> = vec![(&name, Entry::File(&config, 0o644))];
    parts.push(("manifest.json", Entry::File(manifest.as_bytes(), 0o644)));
    for (path, layer) in paths.iter().zip(layers) {
        parts.push((path, Entry::File(layer, 0o644)));
    }
    tar(&parts)
}

/// An OCI layout in a directory, its layers packed by `pack`.
pub(crate) fn layout(directory: &Path, layers: &[Vec<u8>], settings: &str, pack: fn(&[u8]) -> Vec<u8>) {
    let blobs = directory.join("blobs/sha256");
    fs::create_dir_all(&blobs).unwrap();
    let keep = |bytes: &[u8]| {
        fs::write(blobs.join(digest(bytes)), bytes).unwrap();
        format!(r#"{{"mediaType":"x","digest":"sha256:{}","size":{}}}"#, digest(bytes), bytes.len())
    };
    let config = keep(&config(layers, settings));
    let packed: Vec<String> = layers.iter().map(|layer| keep(&pack(layer))).collect();
    let manifest = keep(format!(r#"{{"config":{config},"layers":[{}]}}"#, packed.join(",")).as_bytes());
    fs::write(directory.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
    fs::write(directory.join("index.json"), format!(r#"{{"schemaVersion":2,"manifests":[{manifest}]}}"#)).unwrap();
}

pub(crate) fn gzip(bytes: &[u8]) -> Vec<u8> {
    filtered("gzip", &["-1"], bytes)
}

fn filtered(program: &str, arguments: &[&str], bytes: &[u8]) -> Vec<u8> {
    use std::io::Write as _;
    use std::process::Stdio;
    let mut child = Command::new(program).args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut input = child.stdin.take().unwrap();
    let bytes = bytes.to_owned();
    let writer = std::thread::spawn(move || input.write_all(&bytes).unwrap());
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap();
    assert!(output.status.success());
    output.stdout
}

/// A program without libraries, which is many programs; the host's.
pub(crate) fn busybox() -> Option<Vec<u8>> {
    let found = fs::read("/usr/bin/busybox").or_else(|_| fs::read("/bin/busybox")).ok()?;
    // One with libraries, which names who loads them, would not start in an image that has none.
    const LOADER: u32 = 3;
    let number = |at: usize, bytes: usize| {
        found
            .get(at..at + bytes)
            .map_or(0, |field| field.iter().rev().fold(0, |sum, byte| sum << 8 | usize::from(*byte)))
    };
    let (headers, size, count) = (number(32, 8), number(54, 2), number(56, 2));
    let is_static = (0..count).all(|index| number(headers + index * size, 4) != LOADER as usize);
    is_static.then_some(found)
}

/// A Debian like any other out of the packages of the one that this machine is: in seconds, and from nobody else.
fn copied(place: &Path) -> Result<(), String> {
    let release = fs::read_to_string("/etc/os-release").unwrap_or_default();
    if !release.lines().any(|line| line == "VERSION_CODENAME=bookworm") {
        return Err("this machine is no such Debian".to_owned());
    }
    let half = place.with_extension("copy");
    let _ = fs::remove_dir_all(&half);
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/roots/own.sh");
    let made = Command::new("sh").arg(script).arg(&half).output().map_err(|error| error.to_string())?;
    if !made.status.success() {
        return Err(String::from_utf8_lossy(&made.stderr).into_owned());
    }
    fs::rename(&half, place).map_err(|error| error.to_string())
}

/// A minimal Debian below the build directory; made once by root, out of this machine or from a mirror.
pub(crate) fn debian() -> Result<PathBuf, String> {
    let place = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap().join("roots/bookworm");
    if place.join("etc/debian_version").exists() && place.join("usr/bin/bash").exists() {
        return Ok(place);
    }
    if !rustix::process::geteuid().is_root() {
        return Err("only root can make one".to_owned());
    }
    fs::create_dir_all(place.parent().unwrap()).unwrap();
    let Err(why) = copied(&place) else { return Ok(place) };
    println!("a Debian from a mirror: {why}");
    let sources = fs::read_to_string("/etc/apt/sources.list.d/debian.sources").unwrap_or_default();
    let mirror = sources.lines().find_map(|line| line.strip_prefix("URIs:")).unwrap_or("http://deb.debian.org/debian");
    let made = Command::new("debootstrap")
        .args(["--variant=minbase", "bookworm"])
        .arg(&place)
        .arg(mirror.trim())
        .output()
        .map_err(|error| format!("debootstrap: {error}"))?;
    if !made.status.success() {
        let _ = fs::remove_dir_all(&place);
        return Err(format!("debootstrap: {}", String::from_utf8_lossy(&made.stderr)));
    }
    Ok(place)
}

/// The Debian as one layer, without its device nodes, which no layer may hold; kept for who may not read all of it.
pub(crate) fn packed(root: &Path) -> Vec<u8> {
    let kept = root.with_extension("tar");
    if let Ok(packed) = fs::read(&kept) {
        return packed;
    }
    let made = Command::new("tar")
        .args([
            "-c",
            "--numeric-owner",
            "--exclude=./dev/*",
            "--exclude=./var/cache/apt/*",
            "--exclude=./usr/share/locale/*",
        ])
        .arg("-C")
        .arg(root)
        .arg(".")
        .output()
        .unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let half = root.with_extension("half");
    fs::write(&half, &made.stdout).unwrap();
    fs::rename(half, kept).unwrap();
    made.stdout
}

/// A small package with a program and a script that runs when it is installed.
pub(crate) fn package(place: &Path) -> Option<Vec<u8>> {
    use std::os::unix::fs::PermissionsExt as _;
    let tree = place.join("package");
    fs::create_dir_all(tree.join("DEBIAN")).unwrap();
    fs::create_dir_all(tree.join("usr/bin")).unwrap();
    let control = "Package: greet\nVersion: 1.0\nArchitecture: all\nMaintainer: nobody <nobody@localhost>\nDescription: says hello\n";
    fs::write(tree.join("DEBIAN/control"), control).unwrap();
    for (path, text) in [
        ("usr/bin/greet", "#!/bin/sh\necho hello\n"),
        ("DEBIAN/postinst", "#!/bin/sh\nset -e\nchown root:root /usr/bin/greet\necho done > /var/lib/greeted\n"),
    ] {
        fs::write(tree.join(path), text).unwrap();
        fs::set_permissions(tree.join(path), fs::Permissions::from_mode(0o755)).unwrap();
    }
    let made = place.join("greet.deb");
    let arguments = ["--root-owner-group", "--build"];
    let done = Command::new("dpkg-deb").args(arguments).arg(&tree).arg(&made).output().ok()?;
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    Some(fs::read(made).unwrap())
}
