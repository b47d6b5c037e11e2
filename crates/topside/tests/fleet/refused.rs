//! A database that can't be had is told by name, and nothing of its password with it.

use crate::fleet::Fleet;
use crate::kit::{Project, Said};

#[test]
fn a_database_that_can_not_be_had_is_told_by_name() {
    let files = [
        ("topside.yaml", "default_agent: worker\n"),
        ("agents/worker.md", "---\nmodel: main\n---\nYou talk.\n"),
        ("models/main.yaml", "main: {provider: script, transcript: main.yaml}\n"),
        ("main.yaml", "title: talk\nsteps:\n- reply:\n  - text: Good day.\n"),
    ];
    let Some(fleet) = Fleet::of("a_database_that_can_not_be_had_is_told_by_name", &files) else { return };
    let (base, _) = fleet.database.rsplit_once('/').unwrap();
    let secret = base.replace("topside@", "topside:hunter2@");
    let own = &fleet.database;
    for (url, code, part) in [
        (format!("{own}?sslmode=sometimes"), "database_url", "sslmode"),
        (format!("{secret}/d?sslcert=mine.pem"), "database_url", "sslcert"),
        (format!("{secret}/d?favourite_colour=blue"), "database_url", "favourite_colour"),
        ("mysql://u:hunter2@127.0.0.1/d".to_owned(), "database_url", "postgres://"),
        (format!("{own}?sslmode=require"), "database_unreachable", "TLS"),
        (format!("{own}?sslrootcert=/nowhere.pem&sslmode=verify-full"), "database_url", "/nowhere.pem"),
        (format!("{secret}/nowhere"), "database_unreachable", "nowhere"),
        ("postgres://u:hunter2@127.0.0.1:1/d".to_owned(), "database_unreachable", "refused"),
    ] {
        for arguments in [&["serve"][..], &["serve", "--api-only"], &["worker"]] {
            let mut command = fleet.project.command(arguments);
            command.args(["--listen", "127.0.0.1:0"]).env("DATABASE_URL", &url);
            let said = Said::of(command.output().unwrap());
            assert_ne!(said.code, Some(0), "{url}: {}", said.talk);
            assert_eq!(said.data, "", "{url}: it says that it serves");
            assert!(said.talk.contains(code) && said.talk.contains(part), "{url}: {code} {part:?}:\n{}", said.talk);
            assert!(!said.talk.contains("hunter2"), "{url}: {}", said.talk);
        }
    }
    check_alone(&fleet.project);
}

/// Processes that are of no use without others say what they lack.
fn check_alone(project: &Project) {
    for arguments in [&["serve", "--api-only"][..], &["worker"]] {
        let said = project.topside(&[arguments, &["--listen", "127.0.0.1:0"]].concat());
        assert_ne!(said.code, Some(0), "{arguments:?}");
        assert!(said.talk.contains("database_missing"), "{arguments:?}: {}", said.talk);
    }
}
