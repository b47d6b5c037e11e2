//! What a sandbox's programs find below `/`, apart from the workspace: read-only, and none of the host's own but what is named.

use crate::Digest;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// Steps of a template at most.
pub const STEPS_MAX: usize = 64;
/// Templates on templates at most.
pub const TEMPLATES_DEPTH_MAX: usize = 8;

/// What stands at `/`. A path of the host stands as it was declared until [`Root::below`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Root {
    /// The host's own tools.
    Host {
        /// The directories of the host that are shown, absolute; none: the usual ones with programs and libraries.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        directories: Vec<PathBuf>,
    },
    /// A directory of the host with a whole system in it.
    Directory {
        /// Where.
        path: PathBuf,
    },
    /// An image: a tar as `docker save` writes it, or an OCI layout, as a tar or a directory.
    Image {
        /// Where.
        path: PathBuf,
    },
    /// What steps made of another root.
    Template(Box<Template>),
}

impl Default for Root {
    fn default() -> Self {
        Self::Host { directories: Vec::new() }
    }
}

impl Root {
    /// Whether it is the host's own tools, with nothing else said.
    pub fn is_default(&self) -> bool {
        matches!(self, Self::Host { directories } if directories.is_empty())
    }

    /// This root with its paths below `folder`, unless they are absolute.
    #[must_use]
    pub fn below(&self, folder: &Path) -> Self {
        match self {
            Self::Host { .. } => self.clone(),
            Self::Directory { path } => Self::Directory { path: folder.join(path) },
            Self::Image { path } => Self::Image { path: folder.join(path) },
            Self::Template(template) => {
                let Template { name, base, steps } = &**template;
                let (name, base, steps) = (name.clone(), base.below(folder), steps.clone());
                Self::Template(Box::new(Template { name, base, steps }))
            }
        }
    }
}

/// A root that is made once by steps, and kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Template {
    /// Its name, for messages.
    pub name: String,
    /// What it begins with; not the host's own tools, which change under it.
    pub base: Root,
    /// Shell commands, each run over what the ones before left; one that fails ends it.
    pub steps: Vec<String>,
}

impl Template {
    /// Digest of the steps, over a base whose content is known by `base`.
    pub fn digest(&self, base: &[Digest]) -> Digest {
        let mut text: Vec<u8> = b"template 1".to_vec();
        text.extend_from_slice(&(base.len() as u64).to_be_bytes());
        for part in base {
            text.extend_from_slice(&part.0);
        }
        for step in &self.steps {
            text.extend_from_slice(&(step.len() as u64).to_be_bytes());
            text.extend_from_slice(step.as_bytes());
        }
        Digest::of(&text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_template_is_known_by_its_base_and_its_steps() {
        let (one, other) = (Digest::of(b"one"), Digest::of(b"other"));
        let of = |base: &[Digest], steps: &[&str]| {
            let steps = steps.iter().map(|step| (*step).to_owned()).collect();
            Template { name: "t".into(), base: Root::default(), steps }.digest(base)
        };
        let all = [
            of(&[one], &["a", "b"]),
            of(&[one], &["ab"]),
            of(&[one], &["b", "a"]),
            of(&[other], &["a", "b"]),
            of(&[one, other], &["a", "b"]),
            of(&[], &["a", "b"]),
        ];
        let distinct: std::collections::BTreeSet<_> = all.iter().collect();
        assert_eq!(distinct.len(), all.len());
        assert_eq!(of(&[one], &["a", "b"]), all[0]);
    }

    #[test]
    fn only_relative_paths_are_put_below_the_folder() {
        let image = |path: &str| Root::Image { path: path.into() };
        assert_eq!(image("images/a.tar").below(Path::new("/p")), image("/p/images/a.tar"));
        assert_eq!(image("/srv/a.tar").below(Path::new("/p")), image("/srv/a.tar"));
        let template = |base| Root::Template(Box::new(Template { name: "t".into(), base, steps: vec!["x".into()] }));
        assert_eq!(template(image("a.tar")).below(Path::new("/p")), template(image("/p/a.tar")));
        assert!(Root::default().below(Path::new("/p")).is_default());
    }
}
