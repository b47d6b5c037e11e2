//! `setup`: what the other steps need on a bare Debian with Rust, installed when it is missing and this is root. What the
//! product itself needs is not here: it needs nothing.

use std::process::Command;

use anyhow::Result;

use crate::context::Context;
use crate::process;
use crate::report::{Finding, Outcome};

/// Where a missing program comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum From {
    /// A Debian package.
    Package(&'static str),
    /// A component of the Rust toolchain.
    Component(&'static str),
    /// A crate that installs a program, at this version.
    Crate(&'static str, &'static str),
}

/// One program that a step starts.
struct Need {
    program: &'static str,
    from: From,
    why: &'static str,
}

const NEEDS: &[Need] = &[
    Need {
        program: "cc",
        from: From::Package("build-essential"),
        why: "SQLite and the cryptography are compiled from C",
    },
    Need {
        program: "git",
        from: From::Package("git"),
        why: "lists the project's files; the coder example works on a repository",
    },
    Need { program: "curl", from: From::Package("curl"), why: "the guide's requests are run as they are written" },
    Need { program: "ip", from: From::Package("iproute2"), why: "the sandbox's network is looked at from inside" },
    Need { program: "pgrep", from: From::Package("procps"), why: "processes in a sandbox are counted from inside" },
    Need {
        program: "initdb",
        from: From::Package("postgresql"),
        why: "the journal's tests start a PostgreSQL server of their own",
    },
    Need {
        program: "pgbouncer",
        from: From::Package("pgbouncer"),
        why: "the journal's tests put a pooler between themselves and their server",
    },
    Need {
        program: "qemu-system-x86_64",
        from: From::Package("qemu-system-x86"),
        why: "the jail is attacked in a guest machine, where walls may come down",
    },
    Need { program: "busybox", from: From::Package("busybox-static"), why: "the guest machine's first process" },
    Need {
        program: "newuidmap",
        from: From::Package("uidmap"),
        why: "users in sandboxes are tried as an ordinary user, too",
    },
    Need { program: "faketime", from: From::Package("faketime"), why: "a held run is shown another year" },
    Need { program: "cargo-fmt", from: From::Component("rustfmt"), why: "the format step" },
    Need { program: "cargo-clippy", from: From::Component("clippy"), why: "the clippy step" },
    Need { program: "cargo-deny", from: From::Crate("cargo-deny", "0.20.2"), why: "licences, bans and sources" },
];

pub(crate) fn run(_context: &Context) -> Result<Outcome> {
    let missing: Vec<&Need> = NEEDS.iter().filter(|need| !is_here(need)).collect();
    let mut outcome =
        Outcome::default().note(format!("{} of {} programs are here", NEEDS.len() - missing.len(), NEEDS.len()));
    let packages: Vec<&str> =
        missing.iter().filter_map(|need| if let From::Package(name) = need.from { Some(name) } else { None }).collect();
    if !packages.is_empty() {
        outcome.findings.extend(install_packages(&packages)?);
    }
    for need in &missing {
        let command = match need.from {
            From::Package(_) => continue,
            From::Component(name) => ["rustup", "component", "add", name].map(str::to_owned).to_vec(),
            From::Crate(name, version) => {
                ["cargo", "install", name, "--locked", "--version", version].map(str::to_owned).to_vec()
            }
        };
        outcome.findings.extend(install(Command::new(&command[0]).args(&command[1..]))?);
    }
    for need in missing {
        if is_here(need) {
            outcome.notes.push(format!("installed {}: {}", need.program, need.why));
        } else {
            let message = format!("is missing ({}); hint: install {:?}", need.why, need.from);
            outcome.findings.push(Finding::new(need.program, message));
        }
    }
    Ok(outcome)
}

/// A program of the toolchain may be a door to a component that is not installed, so it is started.
fn is_here(need: &Need) -> bool {
    match need.from {
        From::Package(_) => process::is_present(need.program) || process::postgres_program(need.program).is_some(),
        From::Component(_) | From::Crate(..) => process::capture(Command::new(need.program).arg("--version"))
            .is_ok_and(|captured| captured.status.success()),
    }
}

fn install_packages(packages: &[&str]) -> Result<Option<Finding>> {
    if !process::is_present("apt-get") {
        return Ok(Some(Finding::new(
            "apt-get",
            format!("is not here, so nothing can be installed: {}", packages.join(" ")),
        )));
    }
    if !is_root()? {
        return Ok(Some(Finding::new(
            "apt-get",
            format!("this is not root; hint: `sudo apt-get install {}`", packages.join(" ")),
        )));
    }
    let mut update = Command::new("apt-get");
    if let Some(finding) = install(update.arg("update"))? {
        return Ok(Some(finding));
    }
    let mut command = Command::new("apt-get");
    install(
        command
            .args(["install", "--yes", "--no-install-recommends"])
            .args(packages)
            .env("DEBIAN_FRONTEND", "noninteractive"),
    )
}

fn is_root() -> Result<bool> {
    Ok(process::capture(Command::new("id").arg("-u"))?.text.trim() == "0")
}

fn install(command: &mut Command) -> Result<Option<Finding>> {
    let shown = format!("{command:?}");
    println!("   {shown}");
    let captured = process::capture(command)?;
    Ok((!captured.status.success()).then(|| Finding::new(shown, captured.tail(20))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_need_is_named_once_and_says_why() {
        let mut programs: Vec<&str> = NEEDS.iter().map(|need| need.program).collect();
        programs.sort_unstable();
        programs.dedup();
        assert_eq!(programs.len(), NEEDS.len());
        assert!(NEEDS.iter().all(|need| !need.why.is_empty()));
    }

    #[test]
    fn an_installation_that_fails_is_a_finding_with_its_words() {
        let finding = install(Command::new("sh").args(["-c", "echo no such package; exit 100"])).expect("sh runs");
        assert!(finding.expect("it failed").message.contains("no such package"));
        assert_eq!(install(&mut Command::new("true")).expect("true runs"), None);
    }
}
