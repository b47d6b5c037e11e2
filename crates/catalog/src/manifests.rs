//! `manifests/*.yaml`: from checked values to manifests. Files are only looked for here; they are copied when a
//! workspace is made.

use crate::folder::{Folder, Found, why};
use crate::problem::{Rule, shown};
use crate::project::{required, text, text_map, texts, word};
use crate::shape::{Check, mode};
use crate::yaml::{self, Node, Place, Value};
use sandbox::manifest::{Group, User};
use sandbox::mount::{R2Mount, S3Mount};
use sandbox::{Entry, Manifest, RelPath};
use std::collections::BTreeMap;

pub(crate) fn manifest(node: &Node, check: &mut Check<'_>, folder: &mut Folder) -> Manifest {
    let mut reader = Reader { check, folder, seen: BTreeMap::new() };
    let entries = node.get("entries").map(|node| reader.entries(node, &RelPath::root())).unwrap_or_default();
    reader.overlaps();
    let manifest =
        Manifest { entries, environment: text_map(node, "environment"), users: users(node), groups: groups(node) };
    // What the shapes can't say. A manifest with other mistakes has them told already.
    if let Err(error) = manifest.check()
        && check.is_whole()
    {
        check.wrong(Rule::BadValue, node.at, error.to_string(), None);
    }
    manifest
}

fn flag(node: &Node, key: &str) -> bool {
    matches!(node.get(key).map(|node| &node.value), Some(Value::Boolean(true)))
}

fn users(node: &Node) -> Vec<User> {
    let items = node.get("users").map(Node::items).unwrap_or_default();
    items.iter().map(|item| User { name: required(item, "name") }).collect()
}

fn groups(node: &Node) -> Vec<Group> {
    let items = node.get("groups").map(Node::items).unwrap_or_default();
    items.iter().map(|item| Group { name: required(item, "name"), users: texts(item, "users") }).collect()
}

struct Reader<'a, 'b> {
    check: &'a mut Check<'b>,
    folder: &'a mut Folder,
    /// Every path of the manifest with where it stands and whether other entries may stand below it.
    seen: BTreeMap<String, (Place, bool)>,
}

impl Reader<'_, '_> {
    fn entries(&mut self, node: &Node, above: &RelPath) -> BTreeMap<RelPath, Entry> {
        let mut found = BTreeMap::new();
        for entry in node.entries() {
            let Ok(path) = entry.key.parse::<RelPath>() else { continue };
            let Ok(whole) = above.join(path.as_str()) else {
                self.check.wrong(Rule::BadValue, entry.at, "the path is too long", None);
                continue;
            };
            self.note(entry, &whole);
            if let Some(value) = self.entry(&entry.node, &whole) {
                found.insert(path, value);
            }
        }
        found
    }

    fn note(&mut self, entry: &yaml::Entry, whole: &RelPath) {
        let kind = entry.node.get("type").and_then(Node::text);
        let open = matches!(kind, Some("dir" | "local_dir"));
        if whole.is_root() && !open {
            let message = "`.` is the workspace itself; expected a folder to fill it with";
            self.check.wrong(Rule::BadValue, entry.at, message, None);
        }
        if let Some((first, _)) = self.seen.insert(whole.as_str().to_owned(), (entry.at, open)) {
            let Place { line, column } = first;
            let message = format!("the path `{}` stands at {line}:{column} already", shown(whole.as_str()));
            self.check.wrong(Rule::Duplicate, entry.at, message, None);
        }
    }

    /// A file has nothing below it.
    fn overlaps(&mut self) {
        let seen = std::mem::take(&mut self.seen);
        for (path, (at, _)) in &seen {
            let mut above = path.as_str();
            while let Some((parent, _)) = above.rsplit_once('/') {
                if let Some((Place { line, column }, false)) = seen.get(parent) {
                    let message = format!(
                        "`{}` stands below `{}`, which is a file ({line}:{column})",
                        shown(path),
                        shown(parent)
                    );
                    self.check.wrong(Rule::BadValue, *at, message, None);
                }
                above = parent;
            }
        }
    }

    fn entry(&mut self, node: &Node, whole: &RelPath) -> Option<Entry> {
        let bits = node.get("mode").and_then(mode);
        let (ephemeral, group) = (flag(node, "ephemeral"), text(node, "group"));
        Some(match node.get("type").and_then(Node::text)? {
            "file" => Entry::File { content: required(node, "content"), mode: bits, ephemeral, group },
            "dir" => {
                let children = node.get("children").map(|node| self.entries(node, whole)).unwrap_or_default();
                Entry::Dir { children, mode: bits, ephemeral, group }
            }
            "local_file" => {
                Entry::LocalFile { source: self.source(node.get("source")?, false)?, mode: bits, ephemeral, group }
            }
            "local_dir" => Entry::LocalDir { source: self.source(node.get("source")?, true)?, ephemeral, group },
            "s3_mount" => Entry::S3Mount(S3Mount {
                bucket: required(node, "bucket"),
                prefix: required(node, "prefix"),
                region: text(node, "region").unwrap_or_else(|| "us-east-1".to_owned()),
                endpoint_url: text(node, "endpoint_url"),
                access_key_id: required(node, "access_key_id"),
                secret_access_key: required(node, "secret_access_key"),
                session_token: text(node, "session_token"),
                on_missing: word(node, "on_missing").unwrap_or_default(),
            }),
            "r2_mount" => Entry::R2Mount(R2Mount {
                bucket: required(node, "bucket"),
                account_id: required(node, "account_id"),
                prefix: required(node, "prefix"),
                endpoint_url: text(node, "endpoint_url"),
                access_key_id: required(node, "access_key_id"),
                secret_access_key: required(node, "secret_access_key"),
                session_token: text(node, "session_token"),
                on_missing: word(node, "on_missing").unwrap_or_default(),
            }),
            _ => return None,
        })
    }

    fn source(&mut self, node: &Node, folder: bool) -> Option<RelPath> {
        let name = node.text()?;
        let path: RelPath = name.parse().ok()?;
        let (message, hint) = match (self.folder.find(name), folder) {
            (Ok(Found::Folder), true) | (Ok(Found::File { .. }), false) => return Some(path),
            (Ok(Found::Folder), false) => {
                (format!("`{}` is a folder; expected a file", shown(name)), Some("write `type: local_dir`".to_owned()))
            }
            (Ok(Found::File { .. }), true) => {
                (format!("`{}` is a file; expected a folder", shown(name)), Some("write `type: local_file`".to_owned()))
            }
            (Err(error), _) => {
                (format!("`{}` can't be used: {}", shown(name), why(&error)), self.folder.similar(path.as_str()))
            }
        };
        self.check.wrong(Rule::Dangling, node.at, message, hint);
        None
    }
}
