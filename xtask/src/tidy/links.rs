//! Links of Markdown documents to files of the project: the file is there, and so is the heading.

use std::collections::{BTreeMap, BTreeSet};

use super::{File, Found};

pub(super) fn check(files: &[File], names: &BTreeSet<&str>) -> Vec<Found> {
    let documents: BTreeMap<&str, &File> =
        files.iter().filter(|file| file.extension() == "md").map(|file| (file.name.as_str(), file)).collect();
    let mut found = Vec::new();
    for (name, file) in &documents {
        for (line, target) in links(&file.text) {
            let (path, heading) = target.split_once('#').map_or((target.as_str(), None), |(path, h)| (path, Some(h)));
            let mut add = |message| found.push(Found::new("link", name, line, message));
            let Some(resolved) = resolve(name, path) else {
                add(format!("`{target}` leads out of the project"));
                continue;
            };
            let folder = format!("{}/", resolved.trim_end_matches('/'));
            if !resolved.is_empty()
                && !names.contains(resolved.as_str())
                && !names.iter().any(|name| name.starts_with(&folder))
            {
                add(format!("`{target}` leads nowhere: there is no {resolved}"));
                continue;
            }
            let document = documents.get(resolved.as_str()).filter(|_| heading.is_some());
            if let (Some(document), Some(heading)) = (document, heading)
                && !headings(&document.text).contains(heading)
            {
                add(format!("`{target}` leads nowhere: {resolved} has no such heading"));
            }
        }
    }
    found
}

/// The lines outside fenced blocks, from 1.
fn prose(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut fenced = false;
    text.lines().enumerate().filter_map(move |(index, line)| {
        let is_fence = line.trim_start().starts_with("```");
        fenced ^= is_fence;
        (!fenced && !is_fence).then_some((index + 1, line))
    })
}

/// Targets inside the project, `](target)` and `[label]: target`.
fn links(text: &str) -> Vec<(usize, String)> {
    let mut links = Vec::new();
    for (line, text) in prose(text) {
        let text = without_code(text);
        for (at, opening) in text.match_indices("](") {
            let rest = &text[at + opening.len()..];
            if let Some(end) = rest.find(')') {
                links.push((line, rest[..end].to_owned()));
            }
        }
        if let Some((_, target)) = text.strip_prefix('[').and_then(|rest| rest.split_once("]: ")) {
            links.push((line, target.to_owned()));
        }
    }
    for (_, target) in &mut links {
        // A title may follow the address.
        *target = target.split_whitespace().next().unwrap_or_default().trim_matches(['<', '>']).to_owned();
    }
    links.retain(|(_, target)| !target.contains("://") && !target.starts_with("mailto:"));
    links
}

/// The line with its inline code cut out.
fn without_code(line: &str) -> String {
    line.split('`').step_by(2).collect::<Vec<_>>().join("`")
}

/// The path a link means, relative to the root; none when it leaves the project.
fn resolve(from: &str, target: &str) -> Option<String> {
    if target.is_empty() {
        return Some(from.to_owned());
    }
    let mut parts: Vec<&str> = match target.strip_prefix('/') {
        Some(_) => Vec::new(),
        None => from.split('/').rev().skip(1).collect::<Vec<_>>().into_iter().rev().collect(),
    };
    for part in target.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop()?;
            }
            part => parts.push(part),
        }
    }
    Some(parts.join("/"))
}

/// Headings as they are addressed: lower case, words joined by `-`, punctuation dropped.
fn headings(text: &str) -> BTreeSet<String> {
    let mut headings = BTreeSet::new();
    for (_, line) in prose(text).filter(|(_, line)| line.starts_with('#')) {
        let title = line.trim_start_matches('#').trim().to_lowercase();
        let kept =
            title.chars().filter(|character| character.is_alphanumeric() || matches!(character, ' ' | '-' | '_'));
        let slug: String = kept.map(|character| if character == ' ' { '-' } else { character }).collect();
        let again = (1..).map(|count| format!("{slug}-{count}")).find(|slug| !headings.contains(slug));
        if !headings.insert(slug) {
            headings.extend(again);
        }
    }
    headings
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_link(link: &str, expected: &str) {
        let file = |name: &str, text: &str| File { name: name.to_owned(), text: text.to_owned() };
        let files = [
            file("docs/guide/a.md", &format!("# Start\n{link}\n")),
            file("docs/guide/b.md", "# One two, `three`!\n## Same\n## Same\n```\n# Not\n```\n"),
            file("README.md", "# Readme\n"),
        ];
        let mut names: BTreeSet<&str> = files.iter().map(|file| file.name.as_str()).collect();
        names.insert("docs/guide/picture.svg");
        let found = check(&files, &names);
        if expected.is_empty() {
            assert!(found.is_empty(), "{link}: {found:?}");
        } else {
            assert_eq!(found.len(), 1, "{link}");
            assert!(found[0].message.contains(expected) && found[0].line == 2, "{link}: {found:?}");
        }
    }

    #[test]
    fn links_that_lead_somewhere() {
        for link in [
            "[b](b.md)",
            "[b](./b.md#one-two-three) and [b](b.md#same-1)",
            "[readme](../../README.md \"title\")",
            "[readme](/README.md)",
            "[folder](../guide)",
            "[folder](../guide/)",
            "[self](#start)",
            "![picture](picture.svg)",
            "[label]: b.md",
            "[out](https://example.com/none) [mail](mailto:a@example.com)",
            "`[code](none.md)`",
        ] {
            check_link(link, "");
        }
    }

    #[test]
    fn links_that_lead_nowhere() {
        check_link("[none](none.md)", "there is no docs/guide/none.md");
        check_link("see [b](b.md) and [none](../none.md)", "there is no docs/none.md");
        check_link("[b](b.md#four)", "no such heading");
        check_link("[b](b.md#not)", "no such heading");
        check_link("[self](#nowhere)", "no such heading");
        check_link("[label]: none.md", "there is no");
        check_link("[out](../../../etc)", "out of the project");
    }
}
