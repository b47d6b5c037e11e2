//! A sandbox on its way, stage by stage: how long each took, and the end of one that stands still. Its limit is one of progress:
//! what gets on has until the hard limit of the whole start.

use crate::engine::Limits;
use crate::liveness::Pulse;
use domain::record::{STAGES_MAX, StageTook, StartWay, Started};
use parking_lot::Mutex;
use sandbox::report::Way;
use sandbox::{Error, Report};
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;
use stdx::Clock;

/// How many times the lull a stage may stand still of which not everything is seen: an object is read whole for its digest, files
/// are made durable at the end, a bucket's objects are listed. A start that is given up there is given up again each time it is
/// tried, and the session with it; what really hangs ends a few minutes later.
const LONG_LULLS: u32 = 10;

/// What becomes of one start.
#[derive(Debug)]
pub(crate) struct Stages {
    clock: Clock,
    /// The driver that waits for it.
    pulse: Option<Arc<Pulse>>,
    lull: Duration,
    whole: Duration,
    began: Duration,
    /// When something moved last.
    moved: Mutex<Duration>,
    took: Mutex<Vec<StageTook>>,
    way: Mutex<Option<StartWay>>,
}

impl Stages {
    /// It begins now.
    pub(crate) fn begin(clock: Clock, limits: Limits, pulse: Option<Arc<Pulse>>) -> Self {
        let began = clock.monotonic();
        Self {
            clock,
            pulse,
            lull: Duration::from_millis(limits.start_lull_ms),
            whole: Duration::from_millis(limits.start_ms_max),
            began,
            moved: Mutex::new(began),
            took: Mutex::default(),
            way: Mutex::default(),
        }
    }

    /// The stage under way gets on.
    pub(crate) fn moved(&self) {
        *self.moved.lock() = self.clock.monotonic();
        if let Some(pulse) = &self.pulse {
            pulse.sign();
        }
    }

    /// Has the provider do its part, which gives up by itself what stands still there; here it has the limit of the whole.
    pub(crate) async fn create<T>(&self, work: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
        self.within(CREATE, self.whole, work).await
    }

    /// Does the work of a stage; gives it up when it stands still, or when the whole start takes too long.
    pub(crate) async fn run<T>(
        &self,
        stage: &'static str,
        work: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Error> {
        self.within(stage, self.lull, work).await
    }

    /// Does the work of a stage of which long parts move nothing that is seen from here.
    pub(crate) async fn run_long<T>(
        &self,
        stage: &'static str,
        work: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Error> {
        let lull = self.lull.saturating_mul(LONG_LULLS);
        // The driver that waits for it hangs no sooner than the stage; the last number would stand for no limit at all.
        let lull_ms = u64::try_from(lull.as_millis()).unwrap_or(u64::MAX - 1);
        let _within = self.pulse.as_ref().map(|pulse| pulse.within(lull_ms));
        self.within(stage, lull, work).await
    }

    async fn within<T>(
        &self,
        stage: &'static str,
        lull: Duration,
        work: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Error> {
        let since = self.clock.monotonic();
        *self.moved.lock() = since;
        let done = tokio::select! {
            biased;
            done = work => done,
            detail = self.overdue(lull) => Err(Error::Start { stage, detail }),
        };
        self.took(stage, micros(self.clock.monotonic().saturating_sub(since)));
        done.map_err(|error| self.told(error))
    }

    /// Waits until the stage under way is to be given up; gives why.
    async fn overdue(&self, lull: Duration) -> String {
        loop {
            let now = self.clock.monotonic();
            let lull_ends = *self.moved.lock() + lull;
            let ends = self.began + self.whole;
            if now >= ends {
                return format!("the start has taken longer than start_ms_max = {}", self.whole.as_millis());
            }
            if now >= lull_ends {
                let times = if lull > self.lull { format!("{LONG_LULLS} times ") } else { String::new() };
                return format!("nothing has moved for {times}start_lull_ms = {}", self.lull.as_millis());
            }
            tokio::time::sleep(lull_ends.min(ends).saturating_sub(now).max(Duration::from_millis(1))).await;
        }
    }

    fn took(&self, stage: &str, duration_us: u64) {
        let mut took = self.took.lock();
        if duration_us > 0 && took.len() < STAGES_MAX {
            took.push(StageTook { stage: stage.to_owned(), duration_us });
        }
    }

    /// Puts the provider's own stages in the place of the whole that it took.
    pub(crate) fn reported(&self, report: Report) {
        let Report { way, claim_us, root_us, workspace_us, ready_us, whole_us } = report;
        *self.way.lock() = way.map(|way| match way {
            Way::Cold => StartWay::Cold,
            Way::Warm => StartWay::Warm,
            Way::TakenOver => StartWay::TakenOver,
        });
        let told = claim_us + root_us + workspace_us + ready_us;
        if told == 0 {
            return;
        }
        let whole = self.took.lock().pop_if(|last| last.stage == CREATE);
        let Some(whole) = whole else { return };
        // What the provider did before and beside its launcher belongs to the claim.
        let claim_us = claim_us + whole.duration_us.max(whole_us).saturating_sub(told);
        for (stage, us) in [("claim", claim_us), ("root", root_us), ("workspace", workspace_us), ("ready", ready_us)] {
            self.took(stage, us);
        }
    }

    /// How it went, for one that lived and goes on.
    pub(crate) fn woken(&self) -> Started {
        Started { way: Some(StartWay::Woken), ..self.started() }
    }

    /// How it went.
    pub(crate) fn started(&self) -> Started {
        Started { way: *self.way.lock(), stages: self.took.lock().clone() }
    }

    /// A failed start, with how long its stages took.
    fn told(&self, error: Error) -> Error {
        match error {
            Error::Start { stage, mut detail } => {
                for (nth, took) in self.took.lock().iter().enumerate() {
                    let before = if nth == 0 { "; took" } else { "," };
                    let _ = write!(detail, "{before} {} {}", took.stage, shown(took.duration_us));
                }
                Error::Start { stage, detail }
            }
            other => other,
        }
    }
}

/// The stage of a provider that tells no stages apart.
const CREATE: &str = "create";

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

/// A duration as people read it.
fn shown(us: u64) -> String {
    format!("{}.{} ms", us / 1_000, us % 1_000 / 100)
}

#[cfg(test)]
mod tests {
    use super::*;
    use stdx::clock::Hands;

    /// The paused clock of the test's runtime.
    #[derive(Debug)]
    struct Paused(tokio::time::Instant);

    impl Hands for Paused {
        fn wall_ms(&self) -> u64 {
            0
        }

        fn monotonic(&self) -> Duration {
            self.0.elapsed()
        }
    }

    fn stages(lull_ms: u64, whole_ms: u64) -> Stages {
        let clock = Clock::given(Arc::new(Paused(tokio::time::Instant::now())));
        let limits = Limits { start_lull_ms: lull_ms, start_ms_max: whole_ms, ..Limits::default() };
        Stages::begin(clock, limits, None)
    }

    async fn some_ms() -> Result<(), Error> {
        tokio::time::sleep(Duration::from_millis(5)).await;
        Ok(())
    }

    /// What becomes of a source that gives a piece every so often, and after so many none.
    async fn check(stages: &Stages, every_ms: u64, pieces: u32, whole: u32) -> Result<(), String> {
        let source = async {
            for _ in 0..pieces {
                tokio::time::sleep(Duration::from_millis(every_ms)).await;
                stages.moved();
            }
            if pieces < whole {
                std::future::pending::<()>().await;
            }
            Ok(())
        };
        stages.run("manifest", source).await.map_err(|error| error.to_string())
    }

    #[tokio::test(start_paused = true)]
    async fn what_trickles_goes_on_past_the_lull_and_what_stops_is_given_up_by_name() {
        let trickling = stages(1_000, 60_000);
        assert_eq!(check(&trickling, 900, 20, 20).await, Ok(()), "18 seconds, and never one without a piece");
        let took = StageTook { stage: "manifest".into(), duration_us: 18_000_000 };
        assert_eq!(trickling.started(), Started { way: None, stages: vec![took] });
        let stopping = stages(1_000, 60_000);
        let told =
            "the sandbox did not start: manifest: nothing has moved for start_lull_ms = 1000; took manifest 3700.0 ms";
        assert_eq!(check(&stopping, 900, 3, 20).await, Err(told.into()));
        let endless = stages(1_000, 10_000);
        let told = "the sandbox did not start: manifest: the start has taken longer than start_ms_max = 10000; took manifest 10000.0 ms";
        assert_eq!(check(&endless, 900, 20, 20).await, Err(told.into()));
    }

    #[tokio::test(start_paused = true)]
    async fn a_long_stage_may_stand_still_for_longer() {
        let stages = stages(1_000, 60_000);
        let digest = async {
            tokio::time::sleep(Duration::from_millis(9_900)).await;
            Ok(())
        };
        assert!(stages.run_long("restore", digest).await.is_ok());
        let told = stages.run_long("restore", std::future::pending::<Result<(), Error>>()).await;
        let told = told.map_err(|error| error.to_string());
        let expected = "the sandbox did not start: restore: nothing has moved for 10 times start_lull_ms = 1000; \
                        took restore 9900.0 ms, restore 10000.0 ms";
        assert_eq!(told, Err(expected.into()));
    }

    #[tokio::test(start_paused = true)]
    async fn a_failed_start_names_the_stage_that_its_provider_was_at_and_how_long_each_took() {
        let stages = stages(1_000, 60_000);
        assert!(stages.run("restore", some_ms()).await.is_ok());
        let failing = async {
            tokio::time::sleep(Duration::from_millis(20)).await;
            Err::<(), _>(Error::Start { stage: "root", detail: "no view".into() })
        };
        let told = stages.create(failing).await.map_err(|error| error.to_string());
        assert_eq!(told, Err("the sandbox did not start: root: no view; took restore 5.0 ms, create 20.0 ms".into()));
    }

    #[tokio::test(start_paused = true)]
    async fn the_stages_of_the_provider_stand_for_the_whole() {
        let stages = stages(1_000, 60_000);
        assert!(stages.create(some_ms()).await.is_ok());
        let report = Report { way: Some(Way::Warm), claim_us: 700, root_us: 0, ready_us: 300, ..Report::none() };
        stages.reported(report);
        let took = |stage: &str, duration_us| StageTook { stage: stage.into(), duration_us };
        let expected = Started { way: Some(StartWay::Warm), stages: vec![took("claim", 4_700), took("ready", 300)] };
        assert_eq!(stages.started(), expected);
    }
}
