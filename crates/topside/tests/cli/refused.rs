//! What is refused: how it is said, and with which exit code.

use crate::kit::Project;

const TALK: &str = "title: talk\nsteps:\n- reply:\n  - text: Good day.\n";

/// An agent without a sandbox, so that it runs on any machine.
fn talker() -> Project {
    Project::of(&[
        ("topside.yaml", "default_agent: worker\n"),
        ("agents/worker.md", "---\nmodel: main\n---\nYou talk.\n"),
        ("models/main.yaml", "main: {provider: script, transcript: main.yaml}\n"),
        ("main.yaml", TALK),
    ])
}

#[test]
fn a_wrong_project_is_named_by_file_and_line() {
    let project = talker();
    std::fs::write(project.path().join("agents/worker.md"), "---\nmodle: main\n---\nYou talk.\n").unwrap();
    for arguments in [&["run", "worker", "x"][..], &["serve", "--listen", "127.0.0.1:0"], &["check"], &["resume"]] {
        let said = project.topside(arguments).ended(3);
        assert!(said.talk.contains("agents/worker.md:2:1: "), "{arguments:?}: {}", said.talk);
        assert!(said.talk.contains("hint: did you mean `model`?"), "{arguments:?}: {}", said.talk);
        assert_eq!(said.data, "", "{arguments:?}");
    }
    assert!(!project.data().exists(), "a wrong project left data behind");
}

#[test]
fn each_refusal_has_its_code() {
    let project = talker();
    std::fs::write(project.path().join("full"), "").unwrap();
    for (arguments, code, part) in [
        (&["run", "wroker", "x"][..], 2, "hint: did you mean `worker`?"),
        (&["run", "worker"], 2, "<TASK>"),
        (&["walk"], 2, "unrecognized subcommand"),
        (&["run", "worker", " "], 1, "the message is empty"),
        (&["run", "worker", "x", "--project", "elsewhere"], 3, "elsewhere"),
        (&["run", "worker", "x", "--data", "full/data"], 1, "full/data"),
        (&["serve", "--listen", "0.0.0.0:0"], 1, "no keys are declared"),
        (&["log", "ses_1", "--data", "nowhere"], 1, "there is no journal in nowhere"),
        (&["record", "worker", "x", "--out", "t.yaml"], 1, "plays the transcript \"talk\""),
    ] {
        let said = project.topside(arguments).ended(code);
        assert!(said.talk.contains(part), "{arguments:?}: {part:?} is not in\n{}", said.talk);
    }
    let said = project.topside(&["run", "worker", "x", "--session", "a"]).ended(0);
    assert_eq!(said.data, "Good day.\n");
    assert!(project.topside(&["log", "b"]).ended(1).talk.contains("there is no session `b`"));
    let odd = project.command(&["check"]).env("TOPSIDE_LOG", "a=b=c").output().unwrap();
    assert_eq!(odd.status.code(), Some(2));
    let half = project.command(&["run", "worker", "x"]).env("TOPSIDE_S3_BUCKET", "b").output().unwrap();
    assert!(String::from_utf8_lossy(&half.stderr).contains("TOPSIDE_S3_ENDPOINT is not set"));
}

#[test]
fn a_data_directory_has_one_owner() {
    let project = talker();
    let mut serving = project.start(&["serve", "--listen", "127.0.0.1:0"]);
    let url = serving.line();
    assert!(url.starts_with("http://127.0.0.1:"), "{url}");
    let process = serving.process().to_string();
    for arguments in [&["run", "worker", "x"][..], &["serve", "--listen", "127.0.0.1:0"], &["resume"]] {
        let said = project.topside(arguments).ended(4);
        assert!(said.talk.contains(&process), "{arguments:?} does not name process {process}: {}", said.talk);
        assert!(said.talk.contains(&url), "{arguments:?} does not say where it serves: {}", said.talk);
    }
    // The log of a directory that is served comes from the service.
    assert!(project.topside(&["log", "nobody"]).ended(1).talk.contains("session_not_found"));
    serving.signal("-TERM");
    let said = serving.wait().ended(0);
    assert!(said.talk.contains("draining"), "{}", said.talk);
    project.topside(&["run", "worker", "x"]).ended(0);
}
