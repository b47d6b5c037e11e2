//! What is measured: the appends of one run, as the engine makes them. Who counts, `main.rs` does.

use domain::record::{AfterCrash, Began, CallHead, Draft, Event, Finished, Judged, Replied, Returned, Save, Submitted};
use domain::{CallStatus, ContentRef, Cost, Digest, Id, Judgement, Limits, RunStatus, Usage, Verdict};
use journal::{Append, Error, Fence, Journal, SealedItem, Sealer, SessionKey};
use stdx::{Clock, Random};

/// Runs of one session.
pub(crate) const RUNS: usize = 8;
/// Appends of one run.
pub(crate) const APPENDS: usize = 6;
/// Contents that each of them carries.
pub(crate) const CONTENTS: [usize; APPENDS] = [1, 1, 1, 1, 1, 2];
/// Records that each of them carries.
pub(crate) const RECORDS: [usize; APPENDS] = [1, 3, 1, 3, 1, 2];

/// One append of a session, as those see it who copy it.
#[derive(Clone, Debug)]
pub(crate) struct Step {
    /// Its records and its contents, counted from the beginning of the session.
    pub(crate) records: std::ops::Range<usize>,
    pub(crate) contents: std::ops::Range<usize>,
    /// Which of the run's appends it is.
    pub(crate) index: usize,
}

/// The appends of one session.
pub(crate) fn steps() -> impl Iterator<Item = Step> {
    let sizes = (0..RUNS).flat_map(|_| RECORDS.into_iter().zip(CONTENTS).enumerate());
    sizes.scan((0, 0), |at, (index, (records, contents))| {
        let from = *at;
        *at = (from.0 + records, from.1 + contents);
        Some(Step { records: from.0..at.0, contents: from.1..at.1, index })
    })
}

/// One run of the measured kind.
struct Run<'a> {
    journal: &'a Journal,
    sealer: Sealer,
    random: &'a Random,
    at_ms: u64,
    run: Id<domain::id::Run>,
    epoch: u64,
    expect: u64,
}

/// Makes the runs of one session, from the first message to the last end; each append waits for the one before.
pub(crate) async fn one_session(journal: &Journal, clock: &Clock, random: &Random) -> Result<(), Error> {
    let at_ms = clock.wall_ms();
    let key = SessionKey::new("default", Id::new(at_ms, random.bytes()));
    let sealer = journal.sealer(&key).await?;
    let epoch = journal.claim(&key).await?.epoch;
    let mut expect = 0;
    for _ in 0..RUNS {
        let mut run =
            Run { journal, sealer: sealer.clone(), random, at_ms, run: Id::new(at_ms, random.bytes()), epoch, expect };
        run.submit().await?;
        run.call(1).await?;
        run.call(2).await?;
        run.finish().await?;
        expect = run.expect;
    }
    Ok(())
}

impl Run<'_> {
    fn draft(&self, event: Event) -> Draft {
        Draft { at_ms: self.at_ms, principal: Id::from_bytes([9; 16]), event }
    }

    fn seal(&self, bytes: usize) -> Result<(ContentRef, SealedItem), Error> {
        self.sealer.seal(domain::content::media::TEXT, &vec![b'x'; bytes])
    }

    fn effect(&self) -> Append {
        let fence = Fence::Effect { epoch: self.epoch, expect: self.expect };
        Append::new(self.sealer.session().clone(), fence)
    }

    async fn append(&mut self, entry: Append) -> Result<(), Error> {
        self.expect = self.journal.append(entry).await?.written().map_or(0, journal::Written::next_position);
        Ok(())
    }

    async fn submit(&mut self) -> Result<(), Error> {
        let (message, item) = self.seal(120)?;
        let submitted = Submitted {
            run: self.run,
            agent: "maya".to_owned(),
            closure: Digest::ZERO,
            message: Some(message),
            session_name: None,
            idempotency: None,
            limits: Limits::default(),
            save: Save::default(),
            callback: None,
        };
        let entry = Append::new(self.sealer.session().clone(), Fence::Input(None)).content(item);
        self.append(entry.draft(&self.draft(Event::Submitted(submitted)))).await
    }

    fn replied(&self, turn: u32, calls: Vec<CallHead>) -> Result<(Draft, SealedItem), Error> {
        let (items, item) = self.seal(600)?;
        let model = "gpt-5.4-mini".to_owned();
        let (usage, cost) = (Usage::default(), Cost::default());
        let (scope, steers) = (None, 0);
        let replied = Replied { run: self.run, turn, items, calls, model, usage, cost, duration_ms: 3, scope, steers };
        Ok((self.draft(Event::Replied(replied)), item))
    }

    /// A turn with one call; its end is an entry of its own, as for a call that takes a while.
    async fn call(&mut self, turn: u32) -> Result<(), Error> {
        let (run, epoch) = (self.run, self.epoch);
        let call = Id::new(self.at_ms, self.random.bytes());
        let head = CallHead { call, index: 0, tool: Some("lookup_account".to_owned()) };
        let (replied, item) = self.replied(turn, vec![head])?;
        let judgement = Judgement {
            verdict: Verdict::Allow,
            policies: vec!["dev.cedar:12 reads".to_owned()],
            reason: "allowed".to_owned(),
            pack: "dev".to_owned(),
        };
        let began = Began { run, call, attempt: 1, epoch, key: None, after_crash: AfterCrash::Repeat };
        let entry = self.effect().content(item).draft(&replied);
        let entry =
            entry.draft(&self.draft(Event::Judged(Judged { run, call, judgement, obligation: None, held: false })));
        self.append(entry.draft(&self.draft(Event::Began(began)))).await?;
        let (output, item) = self.seal(300)?;
        let returned = Returned {
            run,
            call,
            status: CallStatus::Ok,
            output,
            whole: None,
            code: None,
            duration_ms: 1,
            changed_workspace: false,
            held: false,
        };
        self.append(self.effect().content(item).draft(&self.draft(Event::Returned(returned)))).await
    }

    async fn finish(&mut self) -> Result<(), Error> {
        let (replied, item) = self.replied(3, Vec::new())?;
        let (reply, reply_item) = self.seal(400)?;
        let finished = Finished {
            run: self.run,
            status: RunStatus::Completed,
            reply: Some(reply),
            failure: None,
            turns: 3,
            tool_calls: 2,
            usage: Usage::default(),
            cost: Cost::default(),
            used_sandbox: false,
        };
        let entry = self.effect().content(item).content(reply_item).draft(&replied);
        self.append(entry.draft(&self.draft(Event::Finished(finished)))).await
    }
}
