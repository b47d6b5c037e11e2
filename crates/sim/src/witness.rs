//! The outside: tools that do their deeds here, and a witness that remembers every deed whatever becomes of the process. It looks
//! at the medium at the moment of the deed: the deed's `began` must be there.

use crate::disk::{Disk, Mounted, VFS};
use crate::objects::point;
use crate::power::Power;
use crate::project::{TOOLS, Tool};
use crate::time::Time;
use crate::told::Told;
use crate::trace::Trace;
use domain::{Event, Id, id, record};
use journal::{Journal, SessionKey};
use parking_lot::Mutex;
use rusqlite::{Connection, OpenFlags};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use stdx::Random;
use tools::{Context, Functions};

/// Of so many deeds one is checked against the medium itself.
const LOOKED_AT: u64 = 4;

/// What a tool did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Deed {
    /// The tool.
    pub tool: &'static str,
    /// The session.
    pub session: Id<id::Session>,
    /// The run.
    pub run: Id<id::Run>,
    /// The call.
    pub call: Id<id::Call>,
    /// The key under which a repetition is known.
    pub key: Option<String>,
    /// How many had to approve of it.
    pub approvals: usize,
}

/// The outside. Cloning is cheap; clones are the same.
#[derive(Clone, Debug)]
pub struct Witness(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    power: Power,
    random: Random,
    disk: Disk,
    database: String,
    told: Told,
    time: Time,
    trace: Trace,
    /// Whoever keeps the leases in this life.
    leases: Mutex<Option<Journal>>,
    deeds: Mutex<Vec<Deed>>,
    wrong: Mutex<Vec<String>>,
}

impl Witness {
    pub(crate) fn new(random: Random, disk: Disk, database: String, told: Told, time: Time, trace: Trace) -> Self {
        let (power, leases) = (disk.power().clone(), Mutex::default());
        let (deeds, wrong) = (Mutex::default(), Mutex::default());
        Self(Arc::new(Inner { power, random, disk, database, told, time, trace, leases, deeds, wrong }))
    }

    /// Asks this journal from now on who holds a session; `None`: nobody is to be asked.
    pub(crate) fn ask(&self, leases: Option<Journal>) {
        *self.0.leases.lock() = leases;
    }

    /// The functions that the tools run.
    pub(crate) fn functions(&self) -> Functions {
        let mut functions = Functions::new();
        for tool in TOOLS {
            let witness = self.clone();
            functions.add(tool.name, move |_: serde_json::Value, context: Context| {
                let witness = witness.clone();
                async move { witness.perform(tool, context).await }
            });
        }
        functions
    }

    async fn perform(&self, tool: &'static Tool, context: Context) -> Result<String, String> {
        let Inner { power, random, time, .. } = &*self.0;
        if !power.is_off() {
            self.is_held(tool, &context);
        }
        let slept = time.slept();
        point(power, "tool: asked").await;
        let (before, after) = (random.below(tool.slow_ms_max + 1), random.below(tool.slow_ms_max + 1));
        if before > 0 {
            tokio::time::sleep(Duration::from_millis(before / 2)).await;
        }
        point(power, "tool: about to do it").await;
        // What was under way when the machine fell asleep ends when it wakes; nobody can call it back.
        if self.0.told.is_denied(context.call) && slept == time.slept() {
            self.wrong(format!(
                "`{}` was done for {} after somebody was told that it had not",
                tool.name, context.call
            ));
        }
        self.deed(tool, &context);
        point(power, "tool: did it").await;
        if after > 0 {
            tokio::time::sleep(Duration::from_millis(after / 2)).await;
        }
        point(power, "tool: answers").await;
        match random.below(100) < tool.fails {
            true => Err(format!("{} failed", tool.name)),
            false => Ok(format!("{} done", tool.name)),
        }
    }

    /// Whoever asks for a deed holds the session now.
    fn is_held(&self, tool: &'static Tool, context: &Context) {
        let Some(leases) = self.0.leases.lock().clone() else { return };
        let (_, epoch) = self.0.told.began(context.call);
        let key = SessionKey::new(context.tenant.as_str(), context.session);
        if leases.holds(&key, epoch) == Some(false) {
            self.wrong(format!(
                "`{}` was asked for {} under epoch {epoch}, whose lease is over",
                tool.name, context.call
            ));
        }
    }

    fn deed(&self, tool: &'static Tool, context: &Context) {
        let Inner { random, told, trace, deeds, .. } = &*self.0;
        let Context { call, run, session, idempotency_key, .. } = context;
        let key = idempotency_key.clone();
        trace.say(format_args!("deed {} {session} {call} {key:?}", tool.name));
        let earlier = {
            let mut deeds = deeds.lock();
            let earlier: Vec<_> = deeds.iter().filter(|deed| deed.call == *call).cloned().collect();
            let approvals = tool.approvals;
            deeds.push(Deed {
                tool: tool.name,
                session: *session,
                run: *run,
                call: *call,
                key: key.clone(),
                approvals,
            });
            earlier
        };
        let times = u32::try_from(earlier.len() + 1).unwrap_or(u32::MAX);
        if tool.is_once && times > 1 {
            self.wrong(format!("`{}` was done {times} times for {call}", tool.name));
        }
        if tool.is_keyed && (key.is_none() || earlier.iter().any(|deed| deed.key != key)) {
            self.wrong(format!("`{}` was repeated for {call} under another key: {key:?}", tool.name));
        }
        if told.began(*call).0 < times {
            self.wrong(format!("`{}` was done for {call} before its `began` was told to be durable", tool.name));
        }
        if random.below(LOOKED_AT) == 0 {
            match self.began_on_medium(*call) {
                Ok(began) if began >= times => {}
                Ok(began) => {
                    let told = format!("the medium has {began} of its `began`, and this was deed {times}");
                    self.wrong(format!("`{}` was done for {call} too early: {told}", tool.name));
                }
                Err(error) => self.wrong(format!("the medium can't be read at a deed: {error}")),
            }
        }
    }

    /// How often the medium says that a call began, if the power went now.
    fn began_on_medium(&self, call: Id<id::Call>) -> Result<u32, String> {
        static IMAGES: AtomicU64 = AtomicU64::new(0);
        let image = self.0.disk.image();
        let mounted = Mounted::new(format!("/image/{}", IMAGES.fetch_add(1, Ordering::Relaxed)), &image);
        for suffix in ["", "-wal"] {
            if let Some(bytes) = image.durable(&format!("{}{suffix}", self.0.database)) {
                image.place(&format!("{}/image.db{suffix}", mounted.directory()), bytes);
            }
        }
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let file = format!("{}/image.db", mounted.directory());
        let connection = Connection::open_with_flags_and_vfs(file, flags, VFS).map_err(|error| error.to_string())?;
        let mut all = connection.prepare("SELECT bytes FROM records").map_err(|error| error.to_string())?;
        let mut rows = all.query([]).map_err(|error| error.to_string())?;
        let mut began = 0;
        while let Some(row) = rows.next().map_err(|error| error.to_string())? {
            let bytes: Vec<u8> = row.get(0).map_err(|error| error.to_string())?;
            let event = record::decode(&bytes).map_err(|error| error.to_string())?.event;
            began += u32::from(matches!(event, Event::Began(body) if body.call == call));
        }
        Ok(began)
    }

    fn wrong(&self, what: String) {
        self.0.trace.say(format_args!("WRONG {what}"));
        self.0.wrong.lock().push(what);
    }

    /// Every deed, in order.
    pub fn deeds(&self) -> Vec<Deed> {
        self.0.deeds.lock().clone()
    }

    /// How often each call was done.
    pub(crate) fn times(&self) -> BTreeMap<Id<id::Call>, u32> {
        let mut times = BTreeMap::new();
        self.0.deeds.lock().iter().for_each(|deed| *times.entry(deed.call).or_default() += 1);
        times
    }

    /// What was seen that must never be.
    pub(crate) fn wrongs(&self) -> Vec<String> {
        self.0.wrong.lock().clone()
    }
}
