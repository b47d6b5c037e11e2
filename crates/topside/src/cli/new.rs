//! `topside new`: a first project of four short files, with a transcript so that it runs without a key.

use super::Session;
use super::ending::{Ending, Trouble};
use std::fs::OpenOptions;
use std::io::Write;
use std::path::Path;

/// The files, by their paths in the project.
const FILES: &[(&str, &str)] = &[
    ("topside.yaml", include_str!("first/topside.yaml")),
    ("agents/clerk.md", include_str!("first/agents/clerk.md")),
    ("models/main.yaml", include_str!("first/models/main.yaml")),
    ("manifests/desk.yaml", include_str!("first/manifests/desk.yaml")),
    ("transcripts/first.yaml", include_str!("first/transcripts/first.yaml")),
    ("README.md", include_str!("first/README.md")),
    (".gitignore", ".topside/\n"),
];

pub(crate) fn new(session: &Session, directory: &Path) -> Result<Ending, Trouble> {
    if directory.read_dir().is_ok_and(|mut entries| entries.next().is_some()) {
        return Err(Trouble::NotEmpty { directory: directory.to_owned() });
    }
    for (name, text) in FILES {
        let path = directory.join(name);
        let made = path.parent().map_or(Ok(()), std::fs::create_dir_all);
        let file = made.and_then(|()| OpenOptions::new().write(true).create_new(true).open(&path));
        let written = file.and_then(|mut file| file.write_all(text.as_bytes()));
        written.map_err(|error| Trouble::File { path: path.clone(), error })?;
        session.console.talk_line(&format!("wrote {}", path.display()));
    }
    let shown = directory.display();
    session.console.talk_line(&format!("now: topside run clerk \"Add up the bills.\" --project {shown}"));
    Ok(Ending::Done)
}
