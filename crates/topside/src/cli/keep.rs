//! Puts the files that a run left where people can open them: `outputs/RUN/NAME` of the data directory. The artifacts
//! themselves stay among the objects; these are copies.

use super::clean::clean;
use api::Run;
use client::Client;
use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;
use topside::Data;

/// Bytes of a file's name at most.
const NAME_BYTES_MAX: usize = 200;

/// What became of an artifact.
#[derive(Clone, Debug)]
pub(crate) enum Kept {
    /// It can be opened there.
    File(PathBuf),
    /// It is on storage elsewhere; the link is good for an hour.
    Link {
        /// Its name.
        name: String,
        /// Where it can be fetched.
        url: String,
    },
    /// It could not be copied.
    Lost {
        /// Its name.
        name: String,
        /// Why.
        reason: String,
    },
}

/// Copies every artifact of a run.
pub(crate) async fn keep(client: &Client, data: &Data, run: &Run) -> Vec<Kept> {
    let directory = data.outputs().join(run.run_id.to_string());
    let mut kept = Vec::new();
    for artifact in &run.artifacts {
        let shown = clean(&artifact.name).into_owned();
        if !artifact.url.contains("/artifacts/") || artifact.url.starts_with("https://") {
            kept.push(Kept::Link { name: shown, url: clean(&artifact.url).into_owned() });
            continue;
        }
        let path = directory.join(file_name(&artifact.name).unwrap_or_else(|| artifact.id.to_string()));
        let written = match client.artifact_bytes(artifact).await {
            Err(error) => Err(error.to_string()),
            Ok(bytes) => DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(&directory)
                .and_then(|()| std::fs::write(&path, &bytes))
                .map_err(|error| error.to_string()),
        };
        kept.push(match written {
            Ok(()) => Kept::File(path),
            Err(reason) => Kept::Lost { name: shown, reason },
        });
    }
    kept
}

/// The name as a file of its own: no path, nothing that hides or surprises.
fn file_name(name: &str) -> Option<String> {
    let safe = |c: char| {
        if c == '/' || c == '\\' || c.is_control() || clean(&c.to_string()) != c.to_string() { '_' } else { c }
    };
    let mut out: String = name.chars().map(safe).collect();
    while out.len() > NAME_BYTES_MAX {
        out.pop();
    }
    let out = out.trim_start_matches('.').trim().to_owned();
    (!out.is_empty()).then_some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_stays_a_name() {
        for (name, expected) in [
            ("report.md", Some("report.md")),
            ("out/chart.svg", Some("out_chart.svg")),
            ("../../etc/passwd", Some("_.._etc_passwd")),
            ("..", None),
            ("", None),
            (".bashrc", Some("bashrc")),
            ("a\x1b]0;b\n", Some("a_]0;b_")),
            ("a\u{202e}b", Some("a_b")),
        ] {
            assert_eq!(file_name(name).as_deref(), expected, "{name:?}");
        }
        assert_eq!(file_name(&"ü".repeat(300)).map(|name| name.len()), Some(200));
    }
}
