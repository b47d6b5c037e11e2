//! What stands at `/` in sandboxes: as agents declare it, and the templates of `topside.yaml`.

use crate::link::Linker;
use crate::problem::Rule;
use crate::project::texts;
use crate::shape::Check;
use crate::yaml::{Node, Place, Value};
use domain::Root;
use domain::root::{TEMPLATES_DEPTH_MAX, Template};
use std::collections::BTreeMap;

/// A template with the place of what it names.
#[derive(Debug)]
pub(crate) struct Drafted {
    template: Template,
    base_at: Place,
}

/// A root as it is declared. A template stands there by its name alone, until [`Linker::root`].
pub(crate) fn root(node: &Node, check: &mut Check<'_>) -> Root {
    let Value::Map(entries) = &node.value else { return Root::default() };
    if entries.len() != 1 {
        let message = format!("`sandbox.root` has {} keys; expected one of directory, image, template", entries.len());
        check.wrong(Rule::BadValue, node.at, message, None);
    }
    named(node)
}

fn named(node: &Node) -> Root {
    let entry = node.entries().first().and_then(|entry| Some((entry.key.as_str(), entry.node.text()?)));
    match entry {
        Some(("directory", path)) => Root::Directory { path: path.into() },
        Some(("image", path)) => Root::Image { path: path.into() },
        Some(("template", name)) => {
            Root::Template(Box::new(Template { name: name.to_owned(), base: Root::default(), steps: Vec::new() }))
        }
        _ => Root::default(),
    }
}

pub(crate) fn templates(node: &Node) -> BTreeMap<String, Drafted> {
    let drafted = |name: &str, node: &Node| {
        let base = node.get("base");
        let template =
            Template { name: name.to_owned(), base: base.map(named).unwrap_or_default(), steps: texts(node, "steps") };
        Drafted { template, base_at: base.map_or(node.at, |base| base.at) }
    };
    node.entries().iter().map(|entry| (entry.key.clone(), drafted(&entry.key, &entry.node))).collect()
}

impl<'a> Linker<'a> {
    /// Every template leads to an image in the end.
    pub(crate) fn templates(&mut self) {
        let draft = self.draft;
        for drafted in draft.project.templates.values() {
            self.root(&drafted.template.base, "topside.yaml", drafted.base_at);
        }
    }

    /// A root with all that its templates are made of; `None` when something of it is wrong, which is said.
    pub(crate) fn root(&mut self, root: &'a Root, file: &str, at: Place) -> Option<Root> {
        let templates = &self.draft.project.templates;
        let (mut named, mut last) = (Vec::new(), root);
        while let Root::Template(template) = last {
            let Some(drafted) = templates.get(&template.name) else {
                self.dangling(file, at, "template", &template.name, templates.keys());
                return None;
            };
            if named.len() >= TEMPLATES_DEPTH_MAX {
                let message = format!(
                    "the templates below `{}` lead in a circle or are more than {TEMPLATES_DEPTH_MAX}",
                    template.name
                );
                self.wrong(Rule::BadValue, file, at, message, None);
                return None;
            }
            named.push(&drafted.template);
            last = &drafted.template.base;
        }
        let over = |base: Root, template: &&Template| {
            let (name, steps) = (template.name.clone(), template.steps.clone());
            Root::Template(Box::new(Template { name, base, steps }))
        };
        Some(named.iter().rev().fold(last.clone(), over))
    }
}
