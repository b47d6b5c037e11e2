//! Transcripts played and recorded: what is compared, what is used again, what fails and how loudly.

use domain::{Item, Part};
use model::script::Script;
use model::{Delta, Deltas, Failure, Finish, Model, Prompt, Recorder, Reply};
use std::sync::Arc;
use tokio::sync::mpsc;

const ANALYST: &str = r#"
title: analyst transcript
steps:
- expect: {user: "Analyse (?<file>\\S+)"}
  reply:
  - text: "I'll look at the data."
  - call: {id: call_1, tool: exec_command, arguments: {cmd: "head -3 ${file}; echo $${HOME}"}}
  - call: {id: call_2, tool: view_image, arguments: {path: chart.png}}
- expect:
    outputs:
      call_1: '(?s)Process exited with code 0.*rows=(?<rows>\d+)'
  reply:
  - call: {id: call_3, tool: write_stdin, arguments: {session_id: "${rows:number}", chars: "said \"${rows}\""}}
  - call: {id: call_4, tool: apply_patch, input: "*** Begin ${rows}\n"}
- reply:
  - text: "There are ${rows} rows."
- expect: {user: "^Thanks"}
  reply:
  - text: "You are welcome."
- expect: {user: "^Broken"}
  reply:
  - text: "Done."
- reply:
  - text: "Never said."
"#;

#[cfg(test)]
mod talk {
    use super::*;

    pub(crate) fn user(text: &str) -> Item {
        Item::User { parts: vec![Part::text(text)] }
    }

    pub(crate) fn said(text: &str) -> Item {
        Item::Assistant { text: text.into(), id: None }
    }

    pub(crate) fn call(call_id: &str, name: &str, arguments: &str, custom: bool) -> Item {
        Item::Call { call_id: call_id.into(), name: name.into(), arguments: arguments.into(), custom, id: None }
    }

    pub(crate) fn output(call_id: &str, text: &str) -> Item {
        Item::Output { call_id: call_id.into(), parts: vec![Part::text(text)], custom: false }
    }

    pub(crate) fn prompt(items: Vec<Item>) -> Prompt {
        Prompt {
            instructions: "Be brief.".into(),
            items: items.into_iter().map(Arc::new).collect(),
            tools: Arc::from([]),
            cache_key: None,
            output_tokens_max: None,
        }
    }

    /// A fresh model each time: nothing may be remembered between two replies.
    pub(crate) async fn ask(transcript: &str, items: &[Item]) -> Result<Reply, Failure> {
        Script::parse(transcript).unwrap().reply(&prompt(items.to_vec()), &Deltas::none()).await
    }
}

use talk::{ask, call, output, prompt, said, user};

#[tokio::test]
async fn a_conversation_is_played_to_its_end() {
    let mut items = vec![user("Analyse data.csv")];
    let first = ask(ANALYST, &items).await.unwrap();
    let cmd = "{\"cmd\":\"head -3 data.csv; echo ${HOME}\"}";
    let calls = [
        said("I'll look at the data."),
        call("call_1", "exec_command", cmd, false),
        call("call_2", "view_image", "{\"path\":\"chart.png\"}", false),
    ];
    assert_eq!((&*first.items, first.finish), (&calls[..], Finish::ToolCalls));
    items.extend(first.items);
    items.push(output("call_1", "Process exited with code 0\nOutput:\nrows=42\n"));
    items.push(output("call_2", "whatever"));
    let second = ask(ANALYST, &items).await.unwrap();
    let calls = [
        call("call_3", "write_stdin", "{\"session_id\":42,\"chars\":\"said \\\"42\\\"\"}", false),
        call("call_4", "apply_patch", "*** Begin 42\n", true),
    ];
    assert_eq!(second.items, calls);
    items.extend(second.items);
    items.extend([output("call_3", "x"), output("call_4", "y")]);
    let third = ask(ANALYST, &items).await.unwrap();
    assert_eq!((&*third.items, third.finish), (&[said("There are 42 rows.")][..], Finish::Stop));
    assert_eq!(third.model, "analyst transcript");
    assert!(third.usage.input_tokens > second.usage.input_tokens && third.usage.output_tokens > 0);
    items.extend(third.items);
    // Another message of the same session, and the first one asked again.
    items.push(user("Thanks!"));
    let fourth = ask(ANALYST, &items).await.unwrap();
    assert_eq!(fourth.items, [said("You are welcome.")]);
    items.extend(fourth.items);
    items.push(user("Analyse other.csv"));
    assert_eq!(ask(ANALYST, &items).await.unwrap().items[0], said("I'll look at the data."));
}

#[tokio::test]
async fn whatever_does_not_follow_the_transcript_fails_loudly() {
    let start = || {
        vec![
            user("Analyse data.csv"),
            said("I'll look at the data."),
            call("call_1", "exec_command", "{}", false),
            call("call_2", "view_image", "{}", false),
        ]
    };
    let with = |more: &[Item]| start().into_iter().chain(more.iter().cloned()).collect::<Vec<_>>();
    let good = output("call_1", "Process exited with code 0 rows=1");
    let mut renamed = with(&[good.clone(), output("call_2", "")]);
    renamed[2] = call("call_1", "other_tool", "{}", false);
    let mut reordered = with(&[good.clone(), output("call_2", "")]);
    reordered.swap(2, 3);
    let mut silent = with(&[good.clone(), output("call_2", "")]);
    silent.remove(1);
    let long = output("call_1", &"x".repeat(5_000));
    let rows: Vec<(Vec<Item>, &str, &[&str])> = vec![
        (vec![], "script_unmatched", &["no message of a user"]),
        (vec![user("Hello")], "script_unmatched", &["step 1: `Analyse", "what came: Hello"]),
        (renamed, "script_unmatched", &["step 1", "call call_1 of exec_command", "call call_1 of other_tool"]),
        (reordered, "script_unmatched", &["step 1"]),
        (silent, "script_unmatched", &["step 1", "expected: text, call"]),
        (with(std::slice::from_ref(&good)), "script_unmatched", &["step 2", "`call_2` has no output"]),
        (
            with(&[good.clone(), output("call_2", ""), output("call_7", "")]),
            "script_unmatched",
            &["`call_7`, which was not called"],
        ),
        (
            with(&[output("call_1", "Process exited with code 1"), output("call_2", "")]),
            "script_unmatched",
            &["step 2", "`call_1`", "rows=(?<rows>", "what came: Process exited with code 1"],
        ),
        (with(&[long, output("call_2", "")]), "script_unmatched", &["bytes more"]),
        (
            vec![user("Thanks"), said("You are welcome."), output("call_1", "x")],
            "script_unmatched",
            &["which was not called", "no step after step 4"],
        ),
        (vec![user("Broken")], "script_unused", &["step 5", "step 6 follows"]),
    ];
    for (items, code, words) in rows {
        let failure = ask(ANALYST, &items).await.unwrap_err();
        assert_eq!((failure.code(), failure.retryable), (code, false), "{failure}");
        assert!(words.iter().any(|word| failure.message.contains(word)), "{failure}");
        assert!(failure.message.len() < 2_000, "{failure}");
    }
}

#[tokio::test]
async fn text_is_shown_in_small_pieces() {
    let text = "word ".repeat(400);
    let script = Script::parse(&format!("title: x\nsteps:\n- reply:\n  - text: \"{text}\"")).unwrap();
    let (sender, mut receiver) = mpsc::channel(100);
    script.reply(&prompt(vec![user("go")]), &Deltas::to(sender)).await.unwrap();
    let mut seen = Vec::new();
    while let Some(Delta::Text(piece)) = receiver.recv().await {
        seen.push(piece);
    }
    assert!(seen.len() > 20, "{}", seen.len());
    assert_eq!(seen.concat(), text);
}

/// Lets a transcript that is played be recorded; what comes out must play the same conversation, and others like it.
#[tokio::test]
async fn a_recorded_conversation_plays_again() {
    let live = r#"
title: live
steps:
- expect: {user: "."}
  reply:
  - text: "First:\n  - look at $${HOME}\n\nThen: act"
  - call: {id: "call 1", tool: exec_command, arguments: {cmd: "cat <<'E' > f\n\ttab \"q\" \\\\ back\nE\n", tty: true, env: {A: [1, "$${x}"]}}}
- reply:
  - call: {id: c2, tool: write_stdin, arguments: {session_id: 7, chars: "ls\n"}}
  - call: {id: c3, tool: apply_patch, input: "*** Begin Patch\n*** Add File: a\n+x\n*** End Patch\n"}
- reply:
  - text: "done: yes"
"#;
    let running = |chunk: &str, wall: &str, session: u32| {
        format!(
            "Chunk ID: {chunk}\nWall time: {wall} seconds\nProcess running with session ID {session}\nOutput:\n[a+b] (c)\n"
        )
    };
    let large: String = (0..2_000).map(|number| format!("line {number}\n")).collect();
    let recorder = Recorder::new(Arc::new(Script::parse(live).unwrap()), "a \"recorded\" one: #1");
    let mut items = vec![user("Do it: now (\"please\")\nand well")];
    for outputs in
        [vec![output("call 1", &running("abc123", "0.1234", 7))], vec![output("c2", &large), output("c3", "")], vec![]]
    {
        items.extend(recorder.reply(&prompt(items.clone()), &Deltas::none()).await.unwrap().items);
        items.extend(outputs);
    }
    let transcript = recorder.transcript();
    // The same run on another day: other chunk, other time, other session.
    let mut again = vec![items[0].clone()];
    for outputs in [
        vec![output("call 1", &running("0f0f0f", "12.5", 31))],
        vec![output("c2", &large.replace("line 1000\n", "another\n")), output("c3", "")],
        vec![],
    ] {
        let reply = ask(&transcript, &again).await.unwrap_or_else(|failure| panic!("{failure}\n{transcript}"));
        again.extend(reply.items);
        again.extend(outputs);
    }
    let expected: Vec<Item> = items
        .into_iter()
        .zip(&again)
        .map(|(item, again)| match item {
            Item::Output { .. } => again.clone(),
            Item::Call { name, call_id, .. } if name == "write_stdin" => {
                call(&call_id, &name, "{\"session_id\":31,\"chars\":\"ls\\n\"}", false)
            }
            other => other,
        })
        .collect();
    assert_eq!(again, expected, "{transcript}");
    // Another command's output is another run.
    let mut other = again[..3].to_vec();
    other.push(output("call 1", &running("0f0f0f", "12.5", 31).replace("(c)", "(d)")));
    assert_eq!(ask(&transcript, &other).await.unwrap_err().code(), "script_unmatched");
}

#[tokio::test]
async fn the_transcript_in_the_documentation_plays() {
    let page = include_str!("../../../docs/reference/models.md");
    let transcript = page.split("```yaml\n").nth(1).and_then(|rest| rest.split("```").next()).unwrap();
    let mut items = vec![user("Analyse data.csv, please")];
    items.extend(ask(transcript, &items).await.unwrap().items);
    items.push(output("call_1", "Process exited with code 0\nOutput:\n42 data.csv\n"));
    assert_eq!(ask(transcript, &items).await.unwrap().items, [said("There are 42 rows.")]);
}
