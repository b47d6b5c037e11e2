//! Jobs side by side: a stage mostly waits for its processes, so several are set at once. What the jobs do is none of its
//! business; what they give comes in their order, whichever ended first.

use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Result, anyhow};

use super::Told;
use crate::clock::Stopwatch;

/// Jobs at once: each waits for processes, sockets and leases more than it computes.
pub(super) const LANES: usize = 4;
/// How often a line tells how far the jobs are.
const PROGRESS_SECONDS: f64 = 20.0;

/// Something to do on a stage of its own.
pub(super) struct Job<'a> {
    /// The point, or what else it is about.
    pub(super) name: String,
    pub(super) run: Box<dyn FnOnce() -> Result<Told> + Send + 'a>,
}

impl<'a> Job<'a> {
    pub(super) fn new(name: impl Into<String>, run: impl FnOnce() -> Result<Told> + Send + 'a) -> Self {
        Self { name: name.into(), run: Box::new(run) }
    }
}

/// Does all jobs; gives what each came to, by its name. A job that breaks down is wrong, and the others go on.
pub(super) fn side_by_side(what: &str, jobs: Vec<Job<'_>>) -> Vec<(String, Told)> {
    let names: Vec<String> = jobs.iter().map(|job| job.name.clone()).collect();
    let waiting: Vec<_> = jobs.into_iter().map(|job| Mutex::new(Some(job))).collect();
    let done: Vec<Mutex<Option<Result<Told>>>> = names.iter().map(|_| Mutex::new(None)).collect();
    let (next, progress) = (AtomicUsize::new(0), Mutex::new(Progress::new(what, names.len())));
    let work = || {
        loop {
            let place = next.fetch_add(1, Ordering::Relaxed);
            let Some(job) = waiting.get(place).and_then(|job| taken(job)) else { return };
            let told = (job.run)();
            lock(&progress).ended(told.as_ref().map_or(0, |told| told.kills));
            *lock(&done[place]) = Some(told);
        }
    };
    std::thread::scope(|scope| {
        let lanes: Vec<_> = (0..LANES.min(names.len())).map(|_| scope.spawn(work)).collect();
        for lane in lanes {
            // What a lane that panicked left undone is told below.
            let _ = lane.join();
        }
    });
    let results = done.into_iter().map(|done| done.into_inner().unwrap_or_else(PoisonError::into_inner));
    let told = names.into_iter().zip(results).map(|(name, result)| {
        let told = result.unwrap_or_else(|| Err(anyhow!("its lane broke down")));
        let told = told.unwrap_or_else(|error| Told { wrong: vec![format!("{name}: {error:#}")], ..Told::default() });
        (name, told)
    });
    told.collect()
}

fn taken<'a>(job: &Mutex<Option<Job<'a>>>) -> Option<Job<'a>> {
    lock(job).take()
}

fn lock<T>(shared: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How far the jobs are, told from time to time.
struct Progress<'a> {
    what: &'a str,
    jobs: usize,
    ended: usize,
    kills: u64,
    watch: Stopwatch,
    told_seconds: f64,
}

impl<'a> Progress<'a> {
    fn new(what: &'a str, jobs: usize) -> Self {
        Self { what, jobs, ended: 0, kills: 0, watch: Stopwatch::start(), told_seconds: 0.0 }
    }

    fn ended(&mut self, kills: u64) {
        self.ended += 1;
        self.kills += kills;
        let seconds = self.watch.seconds();
        if seconds - self.told_seconds >= PROGRESS_SECONDS {
            self.told_seconds = seconds;
            let Self { what, jobs, ended, kills, .. } = self;
            println!("   {what}: {ended} of {jobs} stages, {kills} kills, {seconds:.0} s");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_jobs_give_comes_in_their_order_and_a_broken_one_is_wrong() {
        let (first, second) = std::sync::mpsc::sync_channel(1);
        let wait = Mutex::new(second);
        let jobs = vec![
            // Ends after the second.
            Job::new("one", || {
                lock(&wait).recv()?;
                Ok(Told { kills: 1, ..Told::default() })
            }),
            Job::new("two", move || {
                first.send(())?;
                Ok(Told { kills: 2, ..Told::default() })
            }),
            Job::new("three", || anyhow::bail!("it burns")),
        ];
        let told = side_by_side("test", jobs);
        let kills: Vec<_> = told.iter().map(|(name, told)| (name.as_str(), told.kills)).collect();
        assert_eq!(kills, [("one", 1), ("two", 2), ("three", 0)]);
        assert_eq!(told[2].1.wrong, ["three: it burns"]);
    }
}
