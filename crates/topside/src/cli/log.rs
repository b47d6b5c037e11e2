//! `topside log`: the record of a session, from the data directory itself or, while another process has it, from that
//! process over HTTP.

use super::Session;
use super::arguments::Log;
use super::call::sign;
use super::clean::clean;
use super::console::{Console, Paint};
use super::ending::{Ending, Trouble};
use super::run::json_line;
use api::{Happened, Outcome, Record, SandboxStart};
use client::{Client, Follow};
use domain::record::{Purpose, Vote, When};
use domain::{Id, TENANT_DEFAULT};
use engine::SessionName;
use journal::query::PAGE_ROWS_MAX;
use journal::{Journal, SessionKey, Verified};
use std::fmt::Write;
use topside::{Data, Environment};

/// Characters of one text that are printed; `--json` prints all that the record gives.
const TEXT_CHARACTERS_MAX: usize = 2_000;

pub(crate) async fn log(session: Session, arguments: Log) -> Result<Ending, Trouble> {
    let Session { console, environment, .. } = session;
    let verified = match topside::read_journal(&arguments.data, &environment).await {
        Ok(journal) => {
            let printed = from_journal(&console, &journal, &arguments).await;
            journal.close().await?;
            Some(printed?)
        }
        Err(error @ topside::Error::Journal(journal::Error::Locked { .. })) => {
            let Some(url) = Data::at(&arguments.data).announced() else { return Err(error.into()) };
            from_service(&console, &url, &environment, &arguments).await?;
            None
        }
        Err(error) => return Err(error.into()),
    };
    let (text, ending) = match &verified {
        Some(Verified::Intact { records, head_hash }) => {
            (format!("chain of {records} records verifies, head {head_hash}"), Ending::Done)
        }
        Some(Verified::Broken { position, reason }) => {
            (format!("chain is broken at position {position}: {reason}"), Ending::Failed)
        }
        None if arguments.verify => {
            return Err(Trouble::NotVerified);
        }
        None => ("chain not verified: another process has the data directory".to_owned(), Ending::Done),
    };
    match (&verified, arguments.json) {
        (Some(Verified::Intact { records, head_hash }), true) => {
            json_line(&console, &serde_json::json!({"verified": {"records": records, "head": head_hash}}));
        }
        (Some(Verified::Broken { position, reason }), true) => {
            json_line(&console, &serde_json::json!({"verified": {"broken_at": position, "reason": reason}}));
        }
        (None, true) => json_line(&console, &serde_json::json!({ "verified": null })),
        (_, false) => console.data_line(&text),
    }
    Ok(ending)
}

async fn from_journal(console: &Console, journal: &Journal, arguments: &Log) -> Result<Verified, Trouble> {
    let missing = || Trouble::SessionMissing { session: arguments.session.clone(), data: arguments.data.clone() };
    let session = match SessionName::parse(&arguments.session).ok_or_else(missing)? {
        SessionName::Id(id) => id,
        SessionName::Named(name) => Id::from_name(TENANT_DEFAULT, &name),
        SessionName::New => return Err(missing()),
    };
    let key = SessionKey::new(TENANT_DEFAULT, session);
    let mut from = 0;
    loop {
        let page = journal.records(&key, from, PAGE_ROWS_MAX).await?;
        let Some(last) = page.last() else { break };
        from = last.position + 1;
        for stored in &page {
            let record = server::resolved(journal, &key, stored.decode()?).await?;
            print(console, &record, arguments.json);
        }
    }
    if from == 0 {
        return Err(missing());
    }
    Ok(journal.verify(&key).await?)
}

async fn from_service(console: &Console, url: &str, environment: &Environment, arguments: &Log) -> Result<(), Trouble> {
    // The service is on this machine: no proxy stands between.
    let net = net::Client::new(net::Settings::default()).map_err(topside::Error::from)?;
    let client = Client::http(url, environment.get("TOPSIDE_KEY"), net)?;
    let follow = Follow::Session(arguments.session.clone());
    let mut after = None;
    loop {
        let page = client.records(&follow, after).await?;
        for record in &page.records {
            print(console, record, arguments.json);
        }
        match page.next {
            Some(next) => after = Some(next),
            None => return Ok(()),
        }
    }
}

fn print(console: &Console, record: &Record, json: bool) {
    if json {
        json_line(console, &serde_json::json!({ "record": record }));
    } else {
        let paint = if console.data_is_terminal { console.paint } else { Paint::Plain };
        console.data(&told(record, paint));
    }
}

/// A record as people read it: position, time, kind, principal; then what it says.
fn told(record: &Record, paint: Paint) -> String {
    let head = format!("{:>4}  {}  ", record.position, time(record.at_ms));
    let kind = paint.bold(&format!("{:<18}", record.happened.kind()));
    let mut out = format!("{}{kind}{}\n", paint.dim(&head), paint.dim(&record.principal.to_string()));
    for (name, text) in says(&record.happened) {
        let text = clean(&text);
        let mut lines = text.trim_end().lines();
        let _ = writeln!(out, "      {name}: {}", lines.next().unwrap_or_default());
        for line in lines {
            let _ = writeln!(out, "        {line}");
        }
    }
    out
}

fn says(happened: &Happened) -> Vec<(&'static str, String)> {
    match happened {
        Happened::Submitted { agent, message, session_name } => {
            let mut says = vec![("agent", agent.clone())];
            says.extend(message.as_ref().map(|message| ("message", text(message))));
            says.extend(session_name.as_ref().map(|name| ("session", text(name))));
            says
        }
        Happened::Forked { session, at, checkpoint, session_name, model, provider, .. } => {
            let mut says = vec![("from", format!("{session}, after {at} records"))];
            says.extend(checkpoint.map(|checkpoint| ("files", checkpoint.to_string())));
            says.extend(session_name.as_ref().map(|name| ("session", text(name))));
            says.extend(model.as_ref().map(|model| ("model", model.clone())));
            says.extend(provider.as_ref().map(|provider| ("provider", provider.clone())));
            says
        }
        Happened::CancelRequested { .. }
        | Happened::PauseRequested {}
        | Happened::ResumeRequested {}
        | Happened::Steered { .. }
        | Happened::Voted { .. }
        | Happened::Resolved { .. }
        | Happened::Raised { .. }
        | Happened::Operated { .. }
        | Happened::WorkspaceRestored { .. } => wish(happened),
        Happened::Parked { .. }
        | Happened::Deferred { .. }
        | Happened::WorkspaceLost { .. }
        | Happened::ScopeOpened { .. }
        | Happened::Reserved { .. }
        | Happened::CallAdded { .. }
        | Happened::Checkpointed { .. } => course(happened),
        Happened::Resumed { epoch, attached } => {
            let attached = attached.iter().map(|call| ("goes on", call.to_string()));
            [("epoch", epoch.to_string())].into_iter().chain(attached).collect()
        }
        Happened::SandboxOpened { sandbox, provider, walls, missing, restored, start } => {
            let mut says = vec![("sandbox", format!("{sandbox} of {provider}")), ("walls", walls.join(" "))];
            says.extend((!missing.is_empty()).then(|| ("missing", missing.join(" "))));
            says.extend(restored.map(|checkpoint| ("files", checkpoint.to_string())));
            says.extend(start.as_ref().map(|start| ("start", started(start))));
            says
        }
        Happened::SandboxClosed { sandbox, reason } => vec![("sandbox", format!("{sandbox}: {reason}"))],
        Happened::Replied { .. }
        | Happened::Judged { .. }
        | Happened::Began { .. }
        | Happened::Returned { .. }
        | Happened::InDoubt { .. } => turn(happened),
        Happened::WorkspaceChanged { files, unlisted, erased } => {
            let mut says: Vec<_> =
                files.iter().map(|file| ("file", format!("{} {}", sign(file.change), file.path))).collect();
            says.extend((*unlisted > 0).then(|| ("more", format!("{unlisted} files"))));
            says.extend(erased.then(|| ("files", "[erased]".to_owned())));
            says
        }
        Happened::ArtifactSaved { artifact, name, media, bytes } => {
            vec![("artifact", format!("{artifact} {} {media}, {bytes} bytes", text(name)))]
        }
        Happened::Finished { status, reply, error, turns, tool_calls, .. } => {
            let mut says = vec![("status", format!("{status}, {turns} turns, {tool_calls} tool calls"))];
            says.extend(error.as_ref().map(|error| ("error", format!("{}: {}", error.code, error.message))));
            says.extend(reply.as_ref().map(|reply| ("reply", text(reply))));
            says
        }
    }
}

/// What the model said, and what became of its calls.
fn turn(happened: &Happened) -> Vec<(&'static str, String)> {
    match happened {
        Happened::Replied { turn, model, text: said, calls, usage, .. } => {
            let tokens = format!("{} in, {} out", usage.input_tokens, usage.output_tokens);
            let mut says = vec![("model", format!("{model}, turn {turn}, tokens {tokens}"))];
            says.extend(Some(("text", text(said))).filter(|(_, said)| !said.is_empty()));
            says.extend(
                calls.iter().map(|call| ("call", format!("{} {} {}", call.call, call.tool, text(&call.arguments)))),
            );
            says
        }
        Happened::Judged { call, verdict, reason, policies, pack, obligation } => {
            let verdict = format!("{verdict:?}").to_lowercase();
            let mut says = vec![
                ("call", call.to_string()),
                ("verdict", format!("{verdict}: {reason} {} by {pack}", policies.join(" "))),
            ];
            says.extend(obligation.as_ref().map(|obligation| {
                let api::Obligation { quorum, expires_ms, .. } = obligation;
                ("needs", format!("{quorum} to approve until {}", time(*expires_ms)))
            }));
            says
        }
        Happened::Began { call, attempt } => vec![("call", format!("{call}, attempt {attempt}"))],
        Happened::Returned { call, status, output, code, duration_ms } => {
            let code = code.as_deref().map(|code| format!(" ({code})")).unwrap_or_default();
            let what = format!("{call} {}{code} after {duration_ms} ms", status.name());
            vec![("call", what), ("output", text(output))]
        }
        Happened::InDoubt { call } => vec![("call", call.to_string())],
        _ => Vec::new(),
    }
}

/// What somebody said.
fn wish(happened: &Happened) -> Vec<(&'static str, String)> {
    let when = |when: &When| if when.is_now() { "now" } else { "after the turn" }.to_owned();
    match happened {
        Happened::CancelRequested { when: When::AfterTurn } => vec![("when", when(&When::AfterTurn))],
        Happened::Steered { message, when: at } => vec![("message", text(message)), ("when", when(at))],
        Happened::Voted { call, vote, reason, .. } => {
            let vote = match vote {
                Vote::Approve => "approve",
                Vote::Reject => "reject",
            };
            let mut says = vec![("call", call.to_string()), ("vote", vote.to_owned())];
            says.extend(reason.as_ref().map(|reason| ("reason", text(reason))));
            says
        }
        Happened::Resolved { call, outcome, output } => {
            let outcome = match outcome {
                Outcome::Happened => "it happened",
                Outcome::DidNotHappen => "it did not happen",
                Outcome::Compensate => "it is to be undone",
            };
            let mut says = vec![("call", call.to_string()), ("outcome", outcome.to_owned())];
            says.extend(output.as_ref().map(|output| ("output", text(output))));
            says
        }
        Happened::WorkspaceRestored { checkpoint, from, bytes, entries } => {
            vec![("files", format!("{checkpoint} ({}), {entries} entries, {bytes} bytes", from.name()))]
        }
        Happened::Operated { sandbox, deed, detail } => {
            let mut says = vec![("sandbox", sandbox.to_string()), ("deed", deed.name().to_owned())];
            says.extend(detail.as_ref().map(|detail| ("detail", text(detail))));
            says
        }
        Happened::Raised { limits } => {
            let api::Limits { turns, tool_calls, tokens, running_seconds, .. } = limits;
            let limits = format!("{turns} turns, {tool_calls} tool calls, {tokens} tokens, {running_seconds} s");
            vec![("limits", limits)]
        }
        _ => Vec::new(),
    }
}

/// How a sandbox was come by, in one line.
fn started(start: &SandboxStart) -> String {
    let way = start.way.as_deref().map(|way| clean(way).into_owned());
    let stages = start.stages.iter().map(|took| {
        let (ms, tenth) = (took.duration_us / 1_000, took.duration_us % 1_000 / 100);
        format!("{} {ms}.{tenth} ms", clean(&took.stage))
    });
    way.into_iter().chain(stages).collect::<Vec<_>>().join(", ")
}

/// What became of a run besides its calls.
fn course(happened: &Happened) -> Vec<(&'static str, String)> {
    match happened {
        Happened::Parked { waits_for, until_ms } => {
            let mut says = vec![("waits for", waits_for.name().to_owned())];
            says.extend(until_ms.map(|until_ms| ("until", time(until_ms))));
            says
        }
        Happened::Deferred { call, error, attempt, until_ms, .. } => {
            let what = call.map_or_else(|| "the model".to_owned(), |call| call.to_string());
            let error = format!("{}: {}", error.code, error.message);
            vec![("failed", format!("{what}, attempt {attempt}")), ("error", error), ("again", time(*until_ms))]
        }
        Happened::WorkspaceLost { reason } => vec![("reason", reason.clone())],
        Happened::ScopeOpened { call, agent, message, .. } => {
            vec![("call", call.to_string()), ("agent", agent.clone()), ("message", text(message))]
        }
        Happened::Reserved { scope, turn, tokens, .. } => {
            vec![("for", format!("{scope}, turn {turn}")), ("tokens", tokens.to_string())]
        }
        Happened::CallAdded { call, serves, purpose, tool, arguments } => {
            let purpose = match purpose {
                Purpose::Precondition => "precondition of",
                Purpose::Compensation => "compensation of",
            };
            vec![("call", format!("{call} {tool} {}", text(arguments))), (purpose, serves.to_string())]
        }
        Happened::Checkpointed { checkpoint: Some(checkpoint), bytes, entries, .. } => {
            let (bytes, entries) = (bytes.unwrap_or_default(), entries.unwrap_or_default());
            vec![("checkpoint", format!("{checkpoint}, {entries} entries, {bytes} bytes"))]
        }
        Happened::Checkpointed { reason, .. } => vec![("not kept", reason.clone().unwrap_or_default())],
        _ => Vec::new(),
    }
}

fn text(text: &api::Text) -> String {
    if text.erased {
        return format!("(erased, {} bytes)", text.bytes);
    }
    let whole = text.text.as_deref().unwrap_or_default();
    let mut shown: String = whole.chars().take(TEXT_CHARACTERS_MAX).collect();
    if text.cut || shown.len() < whole.len() {
        let _ = write!(shown, "… ({} bytes in all)", text.bytes);
    }
    shown
}

/// A time of day in UTC, as RFC 3339 writes it.
pub(crate) fn time(at_ms: u64) -> String {
    let (days, ms) = (at_ms / 86_400_000, at_ms % 86_400_000);
    // Howard Hinnant's `civil_from_days`, for dates since 1970.
    let z = days + 719_468;
    let era = z / 146_097;
    let day_of_era = z % 146_097;
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    let (hour, minute, second) = (ms / 3_600_000, ms / 60_000 % 60, ms / 1_000 % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{:03}Z", ms % 1_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_told_in_utc() {
        for (ms, expected) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_399_999, "2000-02-28T23:59:59.999Z"),
            (951_782_400_000, "2000-02-29T00:00:00.000Z"),
            (1_700_000_000_123, "2023-11-14T22:13:20.123Z"),
            (4_102_444_800_000, "2100-01-01T00:00:00.000Z"),
        ] {
            assert_eq!(time(ms), expected);
        }
    }
}
