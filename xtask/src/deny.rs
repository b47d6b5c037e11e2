//! `deny`: licences, bans and sources of every library. The list itself is `deny.toml`.

use std::path::PathBuf;

use anyhow::Result;

use crate::context::Context;
use crate::process;
use crate::report::{Finding, Outcome};
use crate::rust_steps::SKIP_ALLOWED;

pub(crate) fn run(context: &Context) -> Result<Outcome> {
    let mut findings = Vec::new();
    let mut check = |arguments: &[&str]| -> Result<()> {
        let captured = process::capture(&mut context.cargo(arguments))?;
        if !captured.status.success() {
            println!("{}", captured.text);
            findings.push(Finding::new(format!("cargo {}", arguments.join(" ")), first_errors(&captured.text)));
        }
        Ok(())
    };
    check(&["deny", "--locked", "check", "bans", "licenses", "sources"])?;
    let mut note = None;
    if has_advisories() {
        check(&["deny", "--locked", "check", "--disable-fetch", "advisories"])?;
    } else {
        note = Some(format!("{SKIP_ALLOWED} no advisory database at hand"));
    }
    Ok(note.into_iter().fold(Outcome::of(findings), Outcome::note))
}

fn first_errors(text: &str) -> String {
    let errors: Vec<&str> = text.lines().filter(|line| line.starts_with("error")).take(10).collect();
    if errors.is_empty() { process::tail(text, 20) } else { errors.join("; ") }
}

/// Whether cargo-deny's database of advisories was fetched to where it keeps it.
fn has_advisories() -> bool {
    let home = std::env::var_os("CARGO_HOME")
        .map(PathBuf::from)
        .or_else(|| std::env::home_dir().map(|home| home.join(".cargo")));
    let databases = home.and_then(|home| std::fs::read_dir(home.join("advisory-dbs")).ok());
    databases.is_some_and(|mut databases| databases.any(|entry| entry.is_ok_and(|entry| entry.path().is_dir())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_errors_are_told_not_the_noise() {
        assert_eq!(
            first_errors("noise\nerror[banned]: crate `a`\nmore\nerror[rejected]: b\n"),
            "error[banned]: crate `a`; error[rejected]: b"
        );
        assert_eq!(first_errors("cannot start\n"), "cannot start");
    }
}
