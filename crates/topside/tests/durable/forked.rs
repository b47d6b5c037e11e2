//! Forks: a session that goes on from a checkpoint of another has exactly the files of that moment, and stands on its own.

use crate::kit::{Project, has_sandbox, kind};
use crate::service::{Service, text};
use chunks::Chunks;
use futures::TryStreamExt;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use stdx::{Clock, Random};

/// Forks of one checkpoint that are made at once.
const AT_ONCE: usize = 20;
/// What makes a tree what it is, in one line for each path. Times of directories are left out.
const TREE: &str = "find . -mindepth 1 \\( -type d -printf 'd %m %p\\n' -o -type l -printf 'l %l %p\\n' -o -printf 'f %m %s %T@ %p\\n' \\) | LC_ALL=C sort; find . -type f | LC_ALL=C sort | xargs -d '\\n' sha256sum";
/// What tells one machine from another, in one line each; none of it may be the same in two sandboxes.
const IDENTITY: &str = "uname -n; sed 's/^/file /' /etc/hostname; cat /etc/machine-id; cat /proc/sys/kernel/random/boot_id; cat /proc/sys/kernel/random/uuid; head -c 16 /dev/urandom | od -An -tx1; stat -f -c %i /workspace";

/// What a third model does in a fork: it looks at the machine and at the whole tree.
fn surveyor() -> String {
    let command =
        format!("({TREE}) | sha256sum | cut -d' ' -f1; {IDENTITY}").replace('\\', "\\\\").replace('"', "\\\"");
    format!(
        r#"title: one who surveys
steps:
- expect: {{user: 'Survey'}}
  reply:
  - call: {{id: survey, tool: exec_command, arguments: {{cmd: "{command}", yield_time_ms: 60000}}}}
- expect: {{outputs: {{survey: '(?s)exited with code 0.*?Output:\n(?<found>.*)'}}}}
  reply:
  - text: "${{found}}"
"#
    )
}

/// What another model does in a fork: it looks at every file.
const OTHER: &str = r#"title: one who looks
steps:
- expect: {user: 'List'}
  reply:
  - call: {id: list, tool: exec_command, arguments: {cmd: "find . -type f | LC_ALL=C sort | xargs -d '\\n' sha256sum", yield_time_ms: 30000}}
- expect: {outputs: {list: '(?s)exited with code 0.*?Output:\n(?<files>.*)'}}
  reply:
  - text: "${files}"
"#;

fn copy(from: &Path, to: &Path) {
    let copied = Command::new("cp").arg("-R").arg(from).arg(to).status().unwrap();
    assert!(copied.success());
}

/// The coder of the examples, with a second model.
fn coder() -> Project {
    let project = Project::of(&[]);
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/coder");
    for name in ["agents", "manifests", "models", "repo", "topside.yaml", "transcripts"] {
        copy(&example.join(name), &project.path().join(name));
    }
    let other = "other: {provider: script, transcript: transcripts/other.yaml}\n";
    std::fs::write(project.path().join("models/other.yaml"), other).unwrap();
    std::fs::write(project.path().join("transcripts/other.yaml"), OTHER).unwrap();
    let surveyor_model = "surveyor: {provider: script, transcript: transcripts/surveyor.yaml}\n";
    std::fs::write(project.path().join("models/surveyor.yaml"), surveyor_model).unwrap();
    std::fs::write(project.path().join("transcripts/surveyor.yaml"), surveyor()).unwrap();
    project
}

/// The archive of a checkpoint, put together from the objects of the data directory.
fn archive(project: &Project, checkpoint: &str) -> Vec<u8> {
    let (data, clock, random) = (project.data(), Clock::system(), Random::system());
    let blobs = blob::Blobs::local(&data.join("objects"), blob::Links::new(&[0; 32], clock.clone())).unwrap();
    let vault = vault::Keys::open(&data.join("keys"), random.clone()).unwrap();
    let keys = Arc::new(chunks::SameKey(vault.derive("default", "checkpoints").unwrap()));
    let chunks = Chunks::new(chunks::Parts { blobs: blobs.clone(), keys, clock, random }, chunks::Config::default());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let manifests = blobs.list("checkpoints/default", 10_000).await.unwrap();
        let name = format!("/{checkpoint}{}", chunks::MANIFEST_SUFFIX);
        let mut of_it = manifests.into_iter().map(|object| object.key).filter(|key| key.as_str().ends_with(&name));
        let manifest = of_it.next().unwrap_or_else(|| panic!("no manifest of {checkpoint}"));
        let described = chunks.describe("default", &manifest).await.unwrap();
        let archive = chunks.get("default", &manifest, described.digest, u64::MAX).await.unwrap();
        let pieces: Vec<_> = archive.pieces.try_collect().await.unwrap();
        pieces.concat()
    })
}

/// The files of a checkpoint with their digests, by other programs than ours.
fn kept(project: &Project, checkpoint: &str) -> String {
    unpacked(project, checkpoint, "find . -type f | LC_ALL=C sort | xargs -d '\\n' sha256sum")
}

/// What a command of the shell says in a checkpoint's files.
fn unpacked(project: &Project, checkpoint: &str, command: &str) -> String {
    let folder = tempfile::tempdir().unwrap();
    let object = folder.path().with_extension("tar");
    std::fs::write(&object, archive(project, checkpoint)).unwrap();
    let unpacked = Command::new("tar").arg("-C").arg(folder.path()).arg("-xpf").arg(&object).status().unwrap();
    std::fs::remove_file(&object).unwrap();
    assert!(unpacked.success());
    let listed = Command::new("sh").args(["-c", command]).current_dir(folder.path()).output().unwrap();
    String::from_utf8(listed.stdout).unwrap().trim().to_owned()
}

/// Forks a session on the other model; gives what that one found there.
fn files_of_fork(service: &Service, session: &str, at: &Value, name: &str) -> String {
    let body = json!({"at": at, "session": name, "model": "other", "message": "List the files."});
    let forked = service.post(&format!("/sessions/{session}/fork"), &body.to_string()).was(201);
    let run = service.standing(&text(&forked, "run_id"), "completed");
    text(&run, "reply").trim().to_owned()
}

fn checkpoints(service: &Service, session: &str) -> Vec<Value> {
    let listed = service.get(&format!("/sessions/{session}/checkpoints")).was(200);
    listed["checkpoints"].as_array().unwrap().clone()
}

#[test]
fn a_fork_has_the_files_of_its_checkpoint_and_outlives_its_parent() {
    if !has_sandbox("a_fork_has_the_files_of_its_checkpoint_and_outlives_its_parent") {
        return;
    }
    let project = coder();
    let service = Service::start(&project);
    let parent = service.begin("fix", "The tests fail. Find out why and mend it.");
    service.standing(&parent, "completed");
    let before = service.records(&parent);
    let places = checkpoints(&service, "fix");
    let with_files: Vec<&Value> = places.iter().filter(|place| place["checkpoint_id"].is_string()).collect();
    assert!(with_files.len() >= 3, "{places:?}");
    let mut seen = Vec::new();
    for place in &with_files {
        let at = &place["at"];
        let expected = kept(&project, &text(place, "checkpoint_id"));
        let files = files_of_fork(&service, "fix", at, &format!("fork-{at}"));
        assert!(files.contains("./repo/lib/say.sh"), "{files}");
        assert_eq!(files, expected, "at {at}");
        seen.push(files);
    }
    seen.sort();
    seen.dedup();
    assert!(seen.len() >= 3, "the checkpoints do not differ, so this shows nothing: {seen:?}");
    not_elsewhere(&service, &places);
    assert_eq!(service.records(&parent), before, "the parent was touched");
    assert_eq!(checkpoints(&service, "fix"), places);
    service.stop();
    project.topside(&["log", "fix", "--verify"]).ended(0);
    // The parent goes, with everything that was its own; each fork stands, and can be forked again.
    let kept_before: Vec<String> =
        with_files.iter().map(|place| kept(&project, &text(place, "checkpoint_id"))).collect();
    let service = Service::start(&project);
    service.ask("DELETE", "/sessions/fix", &[], "").was(200);
    assert_eq!(service.get("/sessions/fix").refusal(), "404 session_not_found");
    for (place, expected) in with_files.iter().zip(kept_before) {
        let fork = format!("fork-{}", place["at"]);
        let at = &checkpoints(&service, &fork).pop().unwrap()["at"].clone();
        assert_eq!(files_of_fork(&service, &fork, at, &format!("again-{fork}")), expected, "{fork}");
        let run = text(&service.get(&format!("/runs?session={fork}")).was(200)["runs"][0], "run_id");
        assert_eq!(service.get(&format!("/runs/{run}/replay")).was(200)["same"], true, "{fork}");
    }
    service.stop();
    for place in with_files {
        project.topside(&["log", &format!("fork-{}", place["at"]), "--verify"]).ended(0);
    }
}

/// Anywhere but at a checkpoint nothing can go on, and the nearest places are named.
fn not_elsewhere(service: &Service, places: &[Value]) {
    let at: Vec<u64> = places.iter().map(|place| place["at"].as_u64().unwrap()).collect();
    let [first, .., last] = at.as_slice() else { panic!("{at:?}") };
    let other = (*first..*last).find(|position| !at.contains(position)).unwrap();
    let refused = service.post("/sessions/fix/fork", &json!({"at": other}).to_string());
    assert_eq!(refused.refusal(), "409 not_forkable");
    let nearest = at.iter().filter(|position| **position < other).max().unwrap();
    assert!(text(&refused.json(), "hint").contains(&nearest.to_string()), "{refused:?}");
}

/// A fork as it found itself.
struct Found {
    tree: String,
    /// Names and numbers of its machine, its session, its sandbox.
    identity: Vec<String>,
    /// The checkpoint that its files were made of.
    restored: String,
}

fn survey(service: &Service, at: &Value, name: &str) -> Found {
    let body = json!({"at": at, "session": name, "model": "surveyor", "message": "Survey."});
    let forked = service.post("/sessions/fix/fork", &body.to_string()).was(201);
    let run = text(&forked, "run_id");
    let ended = service.standing(&run, "completed");
    let opened = service.record(&run, |record| kind(record) == "sandbox_opened");
    let reply = text(&ended, "reply");
    let mut lines = reply.lines().map(|line| line.trim().to_owned());
    let tree = lines.next().unwrap();
    let mut identity: Vec<String> = lines.filter(|line| !line.is_empty()).collect();
    identity.extend([text(&forked, "session_id"), text(&opened["body"], "sandbox")]);
    Found { tree, identity, restored: text(&opened["body"], "restored") }
}

/// Forks every checkpoint, twenty at once; gives what all of them found.
fn survey_all(service: &Service, places: &[(Value, String, String)], round: &str) -> Vec<Found> {
    let mut all = Vec::new();
    for (at, checkpoint, tree) in places {
        let found: Vec<Found> = std::thread::scope(|scope| {
            let name = |fork: usize| format!("{round}-{at}-{fork}");
            let forks: Vec<_> =
                (0..AT_ONCE).map(|fork| scope.spawn(move || survey(service, at, &name(fork)))).collect();
            forks.into_iter().map(|fork| fork.join().unwrap()).collect()
        });
        for fork in &found {
            assert_eq!((&fork.tree, &fork.restored), (tree, checkpoint), "{round}: at {at}");
        }
        all.extend(found);
    }
    all
}

/// A number that the service counts, by name and labels.
fn counted(service: &Service, name: &str) -> u64 {
    let metrics = service.get("/metrics").body;
    let line = metrics.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("no {name} in {metrics}")).parse().unwrap()
}

#[test]
fn twenty_forks_at_once_of_each_checkpoint_have_its_files_and_share_no_identity() {
    if !has_sandbox("twenty_forks_at_once_of_each_checkpoint_have_its_files_and_share_no_identity") {
        return;
    }
    let project = coder();
    let service = Service::start(&project);
    let parent = service.begin("fix", "The tests fail. Find out why and mend it.");
    service.standing(&parent, "completed");
    let copied = counted(&service, "topside_workspaces_kept_total{way=\"copy\"}");
    let places: Vec<(Value, String, String)> = checkpoints(&service, "fix")
        .into_iter()
        .filter(|place| place["checkpoint_id"].is_string())
        .map(|place| {
            let checkpoint = text(&place, "checkpoint_id");
            let tree = unpacked(&project, &checkpoint, &format!("({TREE}) | sha256sum | cut -d' ' -f1"));
            (place["at"].clone(), checkpoint, tree)
        })
        .collect();
    let count = places.len() * AT_ONCE;
    let mut trees: Vec<&String> = places.iter().map(|(.., tree)| tree).collect();
    trees.sort();
    trees.dedup();
    assert!(trees.len() >= 3, "the checkpoints do not differ, so this shows nothing: {places:?}");
    let mut all = survey_all(&service, &places, "copied");
    let made = |service: &Service| {
        ["copy", "chunks"].map(|way| counted(service, &format!("topside_workspaces_made_total{{way=\"{way}\"}}")))
    };
    // Where images share blocks every checkpoint was copied in a moment, and so is every fork of it.
    let [copies, restored] = made(&service);
    let expected = if copied > 0 { [count as u64, 0] } else { [0, count as u64] };
    assert_eq!([copies, restored], expected, "{}", service.logged());
    service.stop();
    // What is kept beside the workspaces goes; the chunks alone bring all of it back.
    let _ = std::fs::remove_file(project.data().join("workspaces.btrfs"));
    std::fs::remove_dir_all(project.data().join("workspaces")).unwrap();
    let service = Service::start(&project);
    all.extend(survey_all(&service, &places, "restored"));
    assert_eq!(made(&service), [0, count as u64]);
    service.stop();
    for part in 0..all[0].identity.len() {
        let of: BTreeSet<&String> = all.iter().map(|fork| &fork.identity[part]).collect();
        assert_eq!(of.len(), all.len(), "shared: {:?}", of.first());
    }
}
