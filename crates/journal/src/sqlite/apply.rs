//! One entry in the writer's transaction: conditions first, then rows. Nothing is written for an entry that is refused,
//! so it needs no savepoint.

use crate::append::{Fence, Idempotency};
use crate::heads::Heads;
use crate::index::{self, ArtifactChange, Change, Finish};
use crate::query::{Head, StoredRecord};
use crate::sqlite::{read, waiting};
use crate::{Append, Appended, Error, Existing, SealedItem, SessionKey, Written, link};
use domain::{Cost, Digest, Id, Record, Wait, id, record};
use rusqlite::{Connection, OptionalExtension, params};
use std::sync::Arc;

/// What came of an entry. An error of the database itself is no outcome: it ends the whole group.
#[derive(Debug)]
pub(crate) enum Outcome {
    Written(Appended, Vec<StoredRecord>),
    Existing(Appended),
    Refused(Error),
}

/// Applies an entry; moves its head in the cache.
pub(crate) fn apply(
    connection: &Connection,
    heads: &mut Heads,
    entry: &Append,
    commit_id: u64,
    now_ms: u64,
) -> Result<Outcome, Error> {
    let Append { key, fence, drafts, contents } = entry;
    let mut head = match heads.get(key) {
        Some(head) => head,
        None => read::head(connection, key)?,
    };
    if let Err(refused) = link::admit(fence, &head) {
        heads.put(key, head);
        return Ok(match repeated(connection, entry, &refused)? {
            Some(written) => Outcome::Existing(Appended::Written(written)),
            None => Outcome::Refused(refused),
        });
    }
    if let Fence::Input(Some(asked)) = fence {
        match taken(connection, &key.tenant, asked, now_ms)? {
            None => {}
            Some((body, existing)) if body == asked.body => {
                return Ok(Outcome::Existing(Appended::Existing(existing)));
            }
            Some((_, existing)) => {
                return Ok(Outcome::Refused(Error::IdempotencyConflict { run: existing.run }));
            }
        }
    }
    if let Some(item) = contents.first()
        && !keep_data_key(connection, key, item)?
    {
        return Ok(Outcome::Refused(Error::DataKeyChanged));
    }
    let (records, written) = link::link(key, fence, drafts, &mut head, commit_id);
    if let Fence::Input(Some(asked)) = fence {
        remember(connection, key, asked, written.first_position)?;
    }
    insert(connection, key, contents, &records)?;
    for (draft, record) in drafts.iter().zip(&records) {
        for change in &draft.changes {
            apply_change(connection, key, record.position, change)?;
        }
    }
    put_head(connection, key, &head)?;
    heads.put(key, head);
    Ok(Outcome::Written(Appended::Written(written), records))
}

/// Raises a session's epoch; gives where its log stands.
pub(crate) fn fence(connection: &Connection, key: &SessionKey, epoch: u64) -> Result<Head, Error> {
    let mut head = read::head(connection, key)?;
    head.epoch = head.epoch.max(epoch);
    put_head(connection, key, &head)?;
    Ok(head)
}

fn put_head(connection: &Connection, key: &SessionKey, head: &Head) -> Result<(), Error> {
    let mut put = connection.prepare_cached(
        "INSERT INTO heads(tenant, session, position, hash, epoch) VALUES (?1, ?2, ?3, ?4, ?5)
         ON CONFLICT DO UPDATE SET position = ?3, hash = ?4, epoch = ?5",
    )?;
    put.execute(params![&*key.tenant, key.session.as_bytes(), head.position, head.hash.0, head.epoch])?;
    Ok(())
}

/// The answer that an entry would get if it stands in the log already; `None`: it does not.
pub(crate) fn stands(connection: &Connection, entry: &Append, now_ms: u64) -> Result<Option<Appended>, Error> {
    let head = read::head(connection, &entry.key)?;
    match (&entry.fence, link::admit(&entry.fence, &head)) {
        (Fence::Effect { .. }, Err(refused)) => Ok(repeated(connection, entry, &refused)?.map(Appended::Written)),
        // Its own key names its own run, if it was taken.
        (Fence::Input(Some(asked)), _) => {
            let taken = taken(connection, &entry.key.tenant, asked, now_ms)?;
            let same = taken.filter(|(body, existing)| *body == asked.body && existing.run == asked.run);
            Ok(same.map(|(_, existing)| Appended::Existing(existing)))
        }
        (Fence::Effect { .. } | Fence::Input(None), _) => Ok(None),
    }
}

/// The answer to an entry that was refused and stands in the log already, see [`link::repeated`].
fn repeated(connection: &Connection, entry: &Append, refused: &Error) -> Result<Option<Written>, Error> {
    let Some(from) = link::stands(entry, refused) else {
        return Ok(None);
    };
    let mut found = Vec::with_capacity(entry.drafts.len() + 1);
    // An entry may be longer than a page.
    while found.len() <= entry.drafts.len() {
        let page = read::records(connection, &entry.key, (from + found.len()) as u64, entry.drafts.len() + 1)?;
        if page.is_empty() {
            break;
        }
        found.extend(page);
    }
    Ok(link::repeated(entry, &found))
}

/// What a key was used for, with the digest of that request.
pub(crate) fn taken(
    connection: &Connection,
    tenant: &str,
    asked: &Idempotency,
    now_ms: u64,
) -> Result<Option<(Digest, Existing)>, Error> {
    let mut found = connection.prepare_cached(
        "SELECT body, session, run, position FROM idempotency WHERE tenant = ?1 AND key = ?2 AND expires_ms > ?3",
    )?;
    let taken = found.query_row(params![tenant, asked.key.0, now_ms], |row| {
        let session = Id::from_bytes(row.get(1)?);
        let run = Id::from_bytes(row.get(2)?);
        Ok((Digest(row.get(0)?), Existing { session, run, position: row.get(3)? }))
    });
    Ok(taken.optional()?)
}

fn remember(connection: &Connection, key: &SessionKey, asked: &Idempotency, position: u64) -> Result<(), Error> {
    let Idempotency { key: digest, body, run, expires_at_ms } = asked;
    let mut insert = connection.prepare_cached(
        "INSERT OR REPLACE INTO idempotency(tenant, key, body, session, run, position, expires_ms)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
    )?;
    let expires_ms = i64::try_from(*expires_at_ms).unwrap_or(i64::MAX);
    let (session, run) = (key.session.as_bytes(), run.as_bytes());
    insert.execute(params![&*key.tenant, digest.0, body.0, session, run, position, expires_ms])?;
    Ok(())
}

/// Stores the session's data key with its first contents. `false`: the session has another one, or none any more, and
/// what was sealed under this one could never be opened.
fn keep_data_key(connection: &Connection, key: &SessionKey, item: &SealedItem) -> Result<bool, Error> {
    if item.key.is_destroyed() {
        return Ok(false);
    }
    if item.key.is_stored() {
        return Ok(true);
    }
    if let Some(there) = read::data_key(connection, key)? {
        return Ok(there == item.key.wrapped);
    }
    let mut insert =
        connection.prepare_cached("INSERT INTO data_keys(tenant, session, wrapped) VALUES (?1, ?2, ?3)")?;
    insert.execute(params![&*key.tenant, key.session.as_bytes(), item.key.wrapped])?;
    Ok(true)
}

fn insert(
    connection: &Connection,
    key: &SessionKey,
    contents: &[SealedItem],
    records: &[StoredRecord],
) -> Result<(), Error> {
    let (tenant, session) = (&*key.tenant, key.session.as_bytes());
    if !contents.is_empty() {
        let mut insert = connection.prepare_cached(
            "INSERT INTO contents(tenant, session, id, form, item_key, body) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
        )?;
        for item in contents {
            let stored = &item.stored;
            let (id, form) = (item.id.as_bytes(), stored.form.number());
            insert.execute(params![tenant, session, id, form, stored.item_key, stored.body])?;
        }
    }
    let mut insert = connection.prepare_cached(
        "INSERT INTO records(tenant, session, position, hash, bytes, commit_id) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
    )?;
    for record in records {
        let StoredRecord { position, hash, bytes, commit_id } = record;
        insert.execute(params![tenant, session, position, hash.0, &**bytes, commit_id])?;
    }
    Ok(())
}

fn apply_change(connection: &Connection, key: &SessionKey, position: u64, change: &Change) -> Result<(), Error> {
    let (tenant, session) = (&*key.tenant, key.session.as_bytes());
    match change {
        Change::Submitted { run, agent, principal, at_ms } => {
            let (run, principal) = (run.as_bytes(), principal.as_bytes());
            connection
                .prepare_cached(
                    "INSERT INTO run_index(tenant, run, session, agent, principal, status, created_ms, updated_ms,
                     submitted_position) VALUES (?1, ?2, ?3, ?4, ?5, 'running', ?6, ?6, ?7)",
                )?
                .execute(params![tenant, run, session, agent, principal, at_ms, position])?;
            connection
                .prepare_cached(
                    "INSERT INTO session_index(tenant, session, created_ms, updated_ms, runs, last_run, agent, principal)
                     VALUES (?1, ?2, ?3, ?3, 1, ?4, ?5, ?6)
                     ON CONFLICT DO UPDATE SET updated_ms = ?3, runs = runs + 1, last_run = ?4, agent = ?5",
                )?
                .execute(params![tenant, session, at_ms, run, agent, principal])?;
        }
        Change::Forked { run, agent, principal, at_ms } => {
            connection
                .prepare_cached(
                    "INSERT INTO session_index(tenant, session, created_ms, updated_ms, runs, last_run, agent, principal)
                     VALUES (?1, ?2, ?3, ?3, 0, ?4, ?5, ?6) ON CONFLICT DO NOTHING",
                )?
                .execute(params![tenant, session, at_ms, run.as_bytes(), agent, principal.as_bytes()])?;
        }
        Change::Status { run, status, waits_for, waits_until_ms, at_ms } => {
            let (waits_for, waits_until_ms) = (waits_for.map(Wait::name), waits_until_ms.map(clamp));
            connection
                .prepare_cached(
                    "UPDATE run_index SET status = ?3, updated_ms = ?4, waits_for = ?5, waits_until_ms = ?6
                     WHERE tenant = ?1 AND run = ?2",
                )?
                .execute(params![tenant, run.as_bytes(), status.name(), at_ms, waits_for, waits_until_ms])?;
        }
        Change::Finished(finish) => {
            finished(connection, tenant, position, finish)?;
            waiting::unhold_all(connection, tenant, finish.run)?;
        }
        Change::Artifact(kept) => artifact(connection, key, position, kept)?,
        Change::Checkpoint { checkpoint, object } => {
            connection
                .prepare_cached(
                    "INSERT INTO checkpoint_index(tenant, session, position, checkpoint, object)
                     VALUES (?1, ?2, ?3, ?4, ?5)",
                )?
                .execute(params![tenant, session, position, checkpoint.as_bytes(), object])?;
        }
        Change::Due { .. } | Change::NotDue { .. } => timer(connection, key, change)?,
        Change::Held { .. } | Change::Unheld { .. } | Change::Announced { .. } | Change::Told { .. } => {
            waiting::apply(connection, key, position, change)?;
        }
    }
    Ok(())
}

fn timer(connection: &Connection, key: &SessionKey, change: &Change) -> Result<(), Error> {
    let (tenant, session) = (&*key.tenant, key.session.as_bytes());
    match change {
        Change::Due { run, kind, at_ms } => {
            let at_ms = i64::try_from(*at_ms).unwrap_or(i64::MAX);
            connection
                .prepare_cached(
                    "INSERT INTO due(tenant, session, run, kind, at_ms) VALUES (?1, ?2, ?3, ?4, ?5)
                     ON CONFLICT DO UPDATE SET at_ms = ?5",
                )?
                .execute(params![tenant, session, run.as_bytes(), kind, at_ms])?;
        }
        Change::NotDue { run, kind } => {
            connection
                .prepare_cached("DELETE FROM due WHERE tenant = ?1 AND session = ?2 AND run = ?3 AND kind = ?4")?
                .execute(params![tenant, session, run.as_bytes(), kind])?;
        }
        _ => {}
    }
    Ok(())
}

fn finished(connection: &Connection, tenant: &str, position: u64, finish: &Finish) -> Result<(), Error> {
    let Finish { run, status, at_ms, turns, tool_calls, usage, cost, used_sandbox } = finish;
    let listed = matches!(cost, Cost::Priced { .. });
    connection
        .prepare_cached(
            "UPDATE run_index SET status = ?3, updated_ms = ?4, finished_ms = ?4, finished_position = ?5, turns = ?6,
             tool_calls = ?7, model_calls = ?8, input_tokens = ?9, cached_tokens = ?10, output_tokens = ?11,
             reasoning_tokens = ?12, cost_micro_usd = ?13, cost_listed = ?14, used_sandbox = ?15,
             waits_for = NULL, waits_until_ms = NULL
             WHERE tenant = ?1 AND run = ?2",
        )?
        .execute(params![
            tenant,
            run.as_bytes(),
            status.name(),
            at_ms,
            position,
            turns,
            tool_calls,
            clamp(usage.model_calls),
            clamp(usage.input_tokens),
            clamp(usage.cached_tokens),
            clamp(usage.output_tokens),
            clamp(usage.reasoning_tokens),
            clamp(cost.micro_usd()),
            listed,
            used_sandbox
        ])?;
    Ok(())
}

fn artifact(connection: &Connection, key: &SessionKey, position: u64, kept: &ArtifactChange) -> Result<(), Error> {
    let ArtifactChange { artifact, run, name, media, bytes, object, at_ms } = kept;
    let name = serde_json::to_string(name).map_err(Error::io)?;
    let ids: [&[u8; 16]; 3] = [artifact.as_bytes(), run.as_bytes(), key.session.as_bytes()];
    connection
        .prepare_cached(
            "INSERT INTO artifact_index(tenant, artifact, run, session, position, name, media, bytes, object, created_ms)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)",
        )?
        .execute(params![&*key.tenant, ids[0], ids[1], ids[2], position, name, media, clamp(*bytes), object, at_ms])?;
    Ok(())
}

/// SQLite's integers have 63 bits for us.
fn clamp(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// Makes the index and the timers anew from the records that are wanted, in the order in which they were written.
pub(crate) fn rebuild_index(connection: &Connection, wanted: impl Fn(&SessionKey, u64) -> bool) -> Result<u64, Error> {
    connection.execute_batch(
        "DELETE FROM session_index; DELETE FROM run_index; DELETE FROM artifact_index;
         DELETE FROM checkpoint_index; DELETE FROM due; DELETE FROM held_index",
    )?;
    let mut records = connection.prepare("SELECT tenant, session, position, bytes FROM records ORDER BY rowid")?;
    let mut rows = records.query([])?;
    let mut read = 0;
    while let Some(row) = rows.next()? {
        let key = read::session_key(row)?;
        let position = row.get(2)?;
        if !wanted(&key, position) {
            continue;
        }
        let bytes = row.get_ref(3)?.as_blob().map_err(Error::corrupt)?;
        let Record { head, event } =
            record::decode(bytes).map_err(|error| Error::Record { position, error: Arc::new(error) })?;
        for change in index::of(head.at_ms, head.principal, &event) {
            // What was told is not told again.
            if matches!(change, Change::Announced { .. } | Change::Told { .. }) {
                continue;
            }
            apply_change(connection, &key, position, &change)?;
        }
        read += 1;
    }
    Ok(read)
}

/// Takes an item out; gives what it was.
pub(crate) fn erase_item(
    connection: &Connection,
    key: &SessionKey,
    item: Id<id::Content>,
) -> Result<Option<crate::contents::Stored>, Error> {
    let stored = read::content(connection, key, item)?;
    let mut delete =
        connection.prepare_cached("DELETE FROM contents WHERE tenant = ?1 AND session = ?2 AND id = ?3")?;
    delete.execute(params![&*key.tenant, key.session.as_bytes(), item.as_bytes()])?;
    Ok(stored)
}

/// Takes all contents of a session and its data key out; gives the items that had an object.
pub(crate) fn erase_session(connection: &Connection, key: &SessionKey) -> Result<Vec<Id<id::Content>>, Error> {
    let (tenant, session) = (&*key.tenant, key.session.as_bytes());
    let mut large =
        connection.prepare_cached("SELECT id FROM contents WHERE tenant = ?1 AND session = ?2 AND form IN (1, 3)")?;
    let objects = large.query_map(params![tenant, session], |row| Ok(Id::from_bytes(row.get(0)?)))?;
    let objects = objects.collect::<Result<_, _>>()?;
    for delete in ["contents", "data_keys"] {
        let sql = format!("DELETE FROM {delete} WHERE tenant = ?1 AND session = ?2");
        connection.execute(&sql, params![tenant, session])?;
    }
    Ok(objects)
}
