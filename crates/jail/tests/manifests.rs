//! Manifests in real sandboxes: ten thousand files laid beside each other, every one right, the same digest each time; what is
//! ephemeral comes back, and nothing is laid again over what was edited.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::disallowed_methods,
    reason = "a test with a main of its own is a test"
)]

mod support;

use bytes::Bytes;
use domain::Digest;
use futures::{StreamExt as _, TryStreamExt as _};
use sandbox::manifest::{Batch, Manifest, Plan, Progress, Which};
use sandbox::{Archive, ArchiveLimits, Error, Exit, Provider as _, RelPath, Sandbox, Start};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use support::{Case, World, new_id, sh};

/// Portions that are laid at once.
const BESIDE: usize = 4;
const FILES: usize = 10_000;

fn main() -> std::process::ExitCode {
    let cases: Vec<Case> = crate::cases![
        ten_thousand_files_are_right,
        what_is_ephemeral_comes_back_and_nothing_else,
        what_the_api_may_not_say_is_refused,
    ];
    support::head::main(cases)
}

/// What one portion after the other gave.
struct Laid {
    digests: Vec<(RelPath, Digest)>,
    told: Vec<Progress>,
    took: Duration,
}

async fn lay(plan: &Plan, which: Which, sandbox: &dyn Sandbox) -> Result<Laid, Error> {
    let begun = Instant::now();
    let (done, told) = (Mutex::new(Progress::default()), Mutex::new(Vec::new()));
    let one = async |batch: Batch| {
        let portion = tokio::task::spawn_blocking(move || batch.read()).await.unwrap()?;
        sandbox.apply(portion.changes).await?;
        let mut done = done.lock().unwrap();
        done.entries += portion.progress.entries;
        done.bytes += portion.progress.bytes;
        told.lock().unwrap().push(*done);
        Ok::<_, Error>(portion.digests)
    };
    let (mut digests, mut beside) = (Vec::new(), Vec::new());
    for batch in plan.batches(which) {
        if !batch.is_alone() {
            beside.push(batch);
            continue;
        }
        let waiting = futures::stream::iter(std::mem::take(&mut beside)).map(&one).buffer_unordered(BESIDE);
        digests.extend(waiting.try_concat().await?);
        digests.extend(one(batch).await?);
    }
    digests.extend(futures::stream::iter(beside).map(&one).buffer_unordered(BESIDE).try_concat().await?);
    Ok(Laid { digests, told: told.into_inner().unwrap(), took: begun.elapsed() })
}

fn manifest(text: serde_json::Value) -> Manifest {
    Manifest::from_api(text.to_string().as_bytes()).unwrap()
}

/// Where the file with this number stands, what it holds, and its mode.
fn file(number: usize) -> (String, String, u32) {
    let mode = [0o644, 0o600, 0o755, 0o440][number % 4];
    (format!("d{:03}/s{}/f{number}", number % 220, number % 3), format!("{number}\n").repeat(number % 97), mode)
}

async fn ten_thousand_files_are_right(world: Arc<World>) {
    let files: serde_json::Map<String, serde_json::Value> = (0..FILES)
        .map(|number| {
            let (at, content, mode) = file(number);
            (at, serde_json::json!({"type": "file", "content": content, "mode": mode}))
        })
        .chain([
            ("d000".to_owned(), serde_json::json!({"type": "dir", "mode": 0o750})),
            ("d001/s1".to_owned(), serde_json::json!({"type": "dir", "mode": 0o555})),
        ])
        .collect();
    let manifest = manifest(serde_json::json!({ "entries": files }));
    let plan = Plan::of(&manifest, Path::new("/nowhere")).unwrap();
    let mut expected: Vec<String> = (0..FILES)
        .map(|number| {
            let (at, content, mode) = file(number);
            format!("{}  ./{at} {mode:o}", Digest::of(content.as_bytes()))
        })
        .collect();
    expected.sort();
    let whole = expected.iter().fold(String::new(), |mut text, line| {
        writeln!(text, "{line}").unwrap();
        text
    });
    let (mut sealed, mut took) = (Vec::new(), Vec::new());
    for _ in 0..3 {
        let mut spec = world.spec(world.session(Start::Fresh, new_id()));
        (spec.limits.workspace_bytes_max, spec.limits.workspace_inodes_max) = (256 << 20, 30_000);
        let sandbox = world.provider.create(spec).await.unwrap();
        let laid = lay(&plan, Which::All, sandbox.as_ref()).await.unwrap();
        assert_eq!(laid.told.last(), Some(&plan.totals()), "it ends where it said that it would");
        assert!(laid.told.len() > 20 && laid.told.is_sorted_by_key(|told| told.entries), "{:?}", laid.told);
        sealed.push(plan.seal(laid.digests).unwrap());
        took.push(laid.took.as_millis());
        // Every file, as programs inside see it.
        let look = "find . -type f -printf '%P %m\\n' | sort > /tmp/modes; find . -type f -print0 | xargs -0 sha256sum | sort -k2 > /tmp/sums; \
                    cut -c67- /tmp/sums | cut -c3- > /tmp/names; cut -d' ' -f1 /tmp/modes | cmp - /tmp/names && cut -d' ' -f2 /tmp/modes | paste -d' ' /tmp/sums - | LC_ALL=C sort | sha256sum; \
                    stat -c %a d000 d001 d001/s1; touch d001/s1/x 2>/dev/null || echo shut";
        let seen = sh(&sandbox, look).await;
        let digest = Digest::of(whole.as_bytes());
        assert_eq!(
            (seen.out, seen.exit),
            (format!("{digest}  -\n750\n755\n555\nshut\n"), Exit::Code(0)),
            "{}",
            seen.err
        );
        sandbox.close().await;
    }
    assert!(sealed.iter().all(|digest| *digest == sealed[0]), "{sealed:?}");
    // Whoever lays it and however: the digest is of what was declared and of what files held.
    let mut alone = Vec::new();
    for batch in plan.batches(Which::All).into_iter().rev() {
        alone.extend(batch.read().unwrap().digests);
    }
    assert_eq!(plan.seal(alone).unwrap(), sealed[0]);
    println!("{FILES} files, {} MB, laid in {took:?} ms", plan.totals().bytes >> 20);
}

async fn exported(sandbox: &Arc<dyn Sandbox>) -> Bytes {
    let mut export = sandbox.export(ArchiveLimits::default()).await.unwrap();
    let pieces: Vec<_> = sandbox::archive::pieces(export.as_mut()).collect().await;
    pieces.into_iter().flat_map(|piece| piece.unwrap().to_vec()).collect::<Vec<u8>>().into()
}

async fn what_is_ephemeral_comes_back_and_nothing_else(world: Arc<World>) {
    let manifest = manifest(serde_json::json!({"entries": {
        "edited": {"type": "file", "content": "declared\n"},
        "removed": {"type": "file", "content": "declared\n"},
        "moved": {"type": "file", "content": "declared\n"},
        "shut": {"type": "dir", "mode": 0o700, "children": {"in": {"type": "file", "content": "declared\n"}}},
        "cache": {"type": "dir", "ephemeral": true, "mode": 0o711, "children": {"a": {"type": "file", "content": "fresh a\n"}}},
        "deep/token": {"type": "file", "content": "fresh token\n", "ephemeral": true, "mode": 0o600},
    }}));
    let plan = Plan::of(&manifest, Path::new("/nowhere")).unwrap();
    let left_out = manifest.left_out().unwrap();
    assert_eq!(left_out.iter().map(RelPath::as_str).collect::<Vec<_>>(), ["cache", "deep/token"]);
    let session = new_id();
    let spec = |start, session| {
        let mut spec = world.spec(world.session(start, session));
        spec.left_out.clone_from(&left_out);
        spec
    };
    let sandbox = world.provider.create(spec(Start::Fresh, session)).await.unwrap();
    lay(&plan, Which::All, sandbox.as_ref()).await.unwrap();
    let edits = "echo mine > edited; rm removed; mv moved elsewhere; chmod 750 shut; echo own > shut/own; echo spoilt > cache/a; \
                 echo left > cache/left; rm deep/token; echo beside > deep/beside";
    assert_eq!(sh(&sandbox, edits).await.exit, Exit::Code(0));
    let archive = exported(&sandbox).await;
    let has = |word: &str| archive.windows(word.len()).any(|part| part == word.as_bytes());
    for (word, there) in
        [("mine\n", true), ("beside\n", true), ("own\n", true), ("spoilt", false), ("left\n", false), ("fresh", false)]
    {
        assert_eq!(has(word), there, "{word}");
    }
    sandbox.close().await;
    // The same workspace again, and out of its archive on what may be another machine.
    let look =
        "cat edited elsewhere shut/in shut/own deep/beside cache/a deep/token; ls; stat -c %a shut cache deep/token";
    let expected = |of_cache: &str| {
        format!(
            "mine\ndeclared\ndeclared\nown\nbeside\nfresh a\nfresh token\ncache\ndeep\nedited\nelsewhere\nshut\n750\n711\n600\n{of_cache}"
        )
    };
    let sandbox = world.provider.create(spec(support::KEPT, session)).await.unwrap();
    lay(&plan, Which::Ephemeral, sandbox.as_ref()).await.unwrap();
    let seen = sh(&sandbox, &format!("{look}; ls cache")).await;
    assert_eq!(seen.out, expected("a\nleft\n"), "kept: {}", seen.err);
    sandbox.close().await;
    let sandbox = world.provider.create(spec(Start::Restored, new_id())).await.unwrap();
    let pieces: Vec<_> = archive.chunks(10_007).map(|piece| Ok(Bytes::copy_from_slice(piece))).collect();
    let archive: Archive = futures::stream::iter(pieces).boxed();
    sandbox.import(archive, ArchiveLimits::default()).await.unwrap();
    lay(&plan, Which::Ephemeral, sandbox.as_ref()).await.unwrap();
    let seen = sh(&sandbox, &format!("{look}; ls cache")).await;
    assert_eq!(seen.out, expected("a\n"), "restored: {}", seen.err);
    sandbox.close().await;
}

async fn what_the_api_may_not_say_is_refused(_: Arc<World>) {
    let rows = [
        (r#"{"entries": {"f": {"type": "local_file", "source": "etc/passwd"}}}"#, "host_path"),
        (
            r#"{"entries": {"d": {"type": "dir", "children": {"e": {"type": "local_dir", "source": "secrets"}}}}}"#,
            "host_path",
        ),
        (r#"{"environment": {"TOKEN": "${secret.X}"}}"#, "secret_in_environment"),
        (r#"{"environment": {"TOKEN": "Bearer ${secret.X}"}}"#, "secret_in_environment"),
        (
            r#"{"entries": {"b": {"type": "s3_mount", "bucket": "b", "access_key_id": "${env.A}", "secret_access_key": "${env.B}"}}}"#,
            "host_credential",
        ),
        (r#"{"entries": {"/etc/x": {"type": "file", "content": ""}}}"#, "malformed"),
        (r#"{"entries": {"../x": {"type": "file", "content": ""}}}"#, "malformed"),
        (r#"{"entries": {"f": {"type": "file", "content": "", "group": "nobody-declared"}}}"#, "unknown_name"),
    ];
    let mut refused = BTreeMap::new();
    for (text, rule) in rows {
        match Manifest::from_api(text.as_bytes()) {
            Err(Error::Manifest { rule: got, .. }) => assert_eq!(got.name(), rule, "{text}"),
            other => panic!("{text}: {other:?}"),
        }
        *refused.entry(rule).or_insert(0) += 1;
    }
    assert_eq!(refused.len(), 5);
}
