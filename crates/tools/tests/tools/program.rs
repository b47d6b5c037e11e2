//! Tools of kind `command`.

use crate::support::{World, text, tool};
use domain::{CallStatus, Contract, Effect, Tool, ToolRun};
use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt as _;

const SCHEMA: &str = r#"{"type":"object","properties":{"n":{"type":"integer"},"big":{"type":"string"}}}"#;

fn program(words: &[&str], environment: &[(&str, &str)]) -> Tool {
    let env: BTreeMap<String, String> =
        environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let program = words.iter().map(|word| (*word).to_owned()).collect();
    tool("score", Effect::Read, SCHEMA, ToolRun::Command { program, env })
}

fn world(tool: Tool, script: &str) -> World {
    let world = World::new(&[tool]);
    let path = world.project.path().join("programs/score.sh");
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(&path, script).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    std::fs::write(world.project.path().join("programs/table.txt"), "a table").unwrap();
    std::fs::write(world.project.path().join("alone.txt"), "alone").unwrap();
    world
}

async fn check(words: &[&str], script: &str, arguments: &str, code: Option<&str>, expected: &str) {
    let world = world(program(words, &[]), script);
    let outcome = world.call("score", arguments).await;
    assert_eq!((outcome.code, text(&outcome)), (code, expected), "{words:?} {script}");
}

#[tokio::test]
async fn programs_read_json_and_answer() {
    let own = ["programs/score.sh"];
    check(&own, "#!/bin/sh\ncat", r#"{"n": 5}"#, None, r#"{"n":5}"#).await;
    check(&own, "#!/bin/sh\necho done; echo talk >&2", "{}", None, "done\n").await;
    check(&own, "#!/bin/sh\ncat \"$(dirname \"$0\")/table.txt\"", "{}", None, "a table").await;
    check(&["sh", "programs/score.sh", "x"], "echo $1", "{}", None, "x\n").await;
    check(&["cat", "alone.txt"], "", "{}", None, "alone").await;
    check(
        &own,
        "#!/bin/sh\necho part; echo 'no such account' >&2; exit 3",
        "{}",
        Some("command_failed"),
        "`score` ended with exit code 3.\nStandard error:\nno such account\n\nStandard output:\npart\n",
    )
    .await;
    check(&own, "#!/bin/sh\nkill -9 $$", "{}", Some("command_failed"), "`score` was ended by signal 9.").await;
    check(
        &["programs/none.sh"],
        "",
        "{}",
        Some("command_program"),
        "`score` can't run: `programs/none.sh` can't be opened: No such file or directory (os error 2)",
    )
    .await;
    check(&["../x.sh"], "", "{}", Some("command_program"), "`score` can't run: `../x.sh` does not lie in the project")
        .await;
}

#[tokio::test]
async fn large_arguments_and_early_ends_do_not_hang() {
    let big = format!(r#"{{"big":"{}"}}"#, "x".repeat(1 << 20));
    let world_one = world(program(&["programs/score.sh"], &[]), "#!/bin/sh\nwc -c");
    assert_eq!(text(&world_one.call("score", &big).await).trim(), big.len().to_string());
    let world_two = world(program(&["programs/score.sh"], &[]), "#!/bin/sh\nexit 0");
    assert_eq!(world_two.call("score", &big).await.status, CallStatus::Ok);
    let world_three = world(program(&["programs/score.sh"], &[]), "#!/bin/sh\ncat");
    let outcome = world_three.call("score", &big).await;
    assert_eq!(outcome.whole.unwrap().len(), big.len());
}

#[tokio::test]
async fn secrets_enter_by_name_and_do_not_come_back() {
    let declared = program(&["programs/score.sh"], &[("TOKEN", "Bearer ${secret.TOKEN}")]);
    let script = "#!/bin/sh\necho \"$TOPSIDE_IDEMPOTENCY_KEY $TOKEN\" | tee /dev/stderr\nexit ${1:-0}";
    let mut world_one = world(declared.clone(), script).secret("TOKEN", "hunter2-hunter2");
    world_one.key = Some("key-1".into());
    assert_eq!(text(&world_one.call("score", "{}").await), "key-1 Bearer [secret TOKEN]\n");
    let failing =
        Tool { run: program(&["programs/score.sh", "1"], &[("TOKEN", "${secret.TOKEN}")]).run, ..declared.clone() };
    let world_two = world(failing, script).secret("TOKEN", "hunter2-hunter2");
    let outcome = world_two.call("score", "{}").await;
    assert!(!text(&outcome).contains("hunter2") && text(&outcome).contains("[secret TOKEN]"), "{outcome:?}");
    let outcome = world(declared, script).call("score", "{}").await;
    assert_eq!(
        (outcome.code, text(&outcome)),
        (Some("tool_not_configured"), "`score` is not configured: secret.TOKEN is not set")
    );
}

#[tokio::test]
async fn a_program_is_killed_at_its_limit() {
    let declared = program(&["sleep", "600.08"], &[]);
    let contract = Contract { timeout_ms: 200, ..declared.contract.clone() };
    let outcome = world(Tool { contract, ..declared }, "").call("score", "{}").await;
    assert_eq!((outcome.status, outcome.code), (CallStatus::TimedOut, Some("tool_timeout")));
    World::until_gone("600.08").await;
}

#[tokio::test]
async fn without_a_jail_nothing_runs() {
    let mut world = world(program(&["touch", "done"], &[]), "");
    world.helper = None;
    let outcome = world.call("score", "{}").await;
    assert_eq!((outcome.status, outcome.code), (CallStatus::Error, Some("helper_missing")));
}
