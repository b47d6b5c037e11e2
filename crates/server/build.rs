//! Gathers the pages under `docs/errors`, so that the binary brings them along and `/docs` works offline.

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::Path;
use std::{fs, io};

fn main() -> io::Result<()> {
    // Asked when it runs, not when it is built: a script that was built for a copy of the project must not look there.
    let package = std::env::var_os("CARGO_MANIFEST_DIR").ok_or_else(|| io::Error::other("cargo names the package"))?;
    let folder = Path::new(&package).join("../../docs/errors");
    // The folder lies outside the package, where cargo does not look by itself.
    writeln!(io::stdout(), "cargo::rerun-if-changed={}\ncargo::rerun-if-changed=build.rs", folder.display())?;
    let mut pages = Vec::new();
    for entry in fs::read_dir(&folder)? {
        let path = entry?.path();
        let name = path.file_stem().and_then(|name| name.to_str()).unwrap_or_default().to_owned();
        if path.extension().is_some_and(|extension| extension == "md") && name != "README" {
            pages.push((name, fs::read_to_string(&path)?));
        }
    }
    pages.sort();
    let mut source = String::from("&[\n");
    for (name, text) in &pages {
        // Writing to a string cannot fail.
        let _ = writeln!(source, "    ({name:?}, {text:?}),");
    }
    source.push_str("]\n");
    let out = std::env::var_os("OUT_DIR").ok_or_else(|| io::Error::other("cargo names the folder for what is made"))?;
    fs::write(Path::new(&out).join("error_pages.rs"), source)
}
