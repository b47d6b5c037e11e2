//! `examples`: each project under `examples/` is run by its own `check.sh`, on its transcript. What an example promises
//! is written there, not here.

use std::collections::BTreeSet;

use anyhow::Result;

use crate::context::{Context, Scope};
use crate::process;
use crate::report::{Finding, Outcome};
use crate::scratch::Scratch;

pub(crate) fn run(context: &Context) -> Result<Outcome> {
    let names = projects(context.files()?);
    let names: Vec<&str> = match &context.scope {
        Scope::One(name) => names.into_iter().filter(|found| found == name).collect(),
        Scope::Whole | Scope::Changed(_) => names.into_iter().collect(),
    };
    if names.is_empty() {
        return Ok(Outcome::of(vec![Finding::new("examples", "there is no project to run")]));
    }
    let mut outcome = Outcome::default();
    for name in names {
        println!("   examples/{name}");
        match check(context, name)? {
            None => outcome.passed += 1,
            Some(message) => {
                outcome.failed += 1;
                outcome.findings.push(Finding::new(format!("examples/{name}"), message));
            }
        }
    }
    Ok(outcome)
}

/// The folders under `examples/` that hold a `topside.yaml`.
fn projects(files: &[String]) -> BTreeSet<&str> {
    let folders = files.iter().filter_map(|file| file.strip_prefix("examples/")?.strip_suffix("/topside.yaml"));
    folders.filter(|folder| !folder.contains('/')).collect()
}

/// Runs one example in a copy of the project; says what went wrong.
fn check(context: &Context, name: &str) -> Result<Option<String>> {
    if !context.root.join("examples").join(name).join("check.sh").is_file() {
        return Ok(Some("has no check.sh that runs it and looks at what came of it".to_owned()));
    }
    let scratch = Scratch::of(context)?;
    let said = scratch.run(&scratch.tree().join("examples").join(name), &["./check.sh"])?;
    Ok((!said.success).then(|| format!("check.sh failed:\n{}", process::tail(said.text.trim_end(), 40))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_project_is_a_folder_with_a_topside_yaml() {
        let files =
            ["examples/README.md", "examples/a/topside.yaml", "examples/b/notes.md", "examples/c/d/topside.yaml"];
        let files = files.map(str::to_owned);
        assert_eq!(projects(&files).into_iter().collect::<Vec<_>>(), ["a"]);
    }
}
