//! Figures of several samples, the machine they were measured on, and how both are shown.

use super::measures::Ground;
use crate::cli::clean::clean;
use sandbox::Provider as _;
use serde_json::{Map, Value, json};
use std::fmt::Write as _;
use std::os::unix::fs::MetadataExt as _;

/// What is worse.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Worse {
    More,
    Less,
}

/// One figure.
#[derive(Debug)]
pub(super) struct Figure {
    /// The key of its median, with its unit.
    pub(super) key: &'static str,
    /// For people.
    pub(super) says: &'static str,
    pub(super) unit: &'static str,
    pub(super) worse: Worse,
    /// Or why there are none.
    pub(super) samples: Result<Vec<f64>, String>,
}

impl Figure {
    /// Of milliseconds.
    pub(super) const fn ms(key: &'static str, says: &'static str, samples: Result<Vec<f64>, String>) -> Self {
        Self { key, says, unit: "ms", worse: Worse::More, samples }
    }

    /// The sample that `share` in 100 are no worse than.
    fn at(&self, share: usize) -> Option<f64> {
        let mut sorted = self.samples.as_ref().ok()?.clone();
        sorted.sort_by(f64::total_cmp);
        if self.worse == Worse::Less {
            sorted.reverse();
        }
        let last = sorted.len().checked_sub(1)?;
        sorted.get((sorted.len() * share / 100).min(last)).copied()
    }

    fn count(&self) -> usize {
        self.samples.as_ref().map_or(0, Vec::len)
    }

    /// Why there is no figure.
    fn missing(&self) -> Option<&str> {
        match &self.samples {
            Ok(samples) if samples.is_empty() => Some("nothing was measured"),
            Ok(_) => None,
            Err(why) => Some(why),
        }
    }
}

/// Where it was measured.
#[derive(Debug)]
pub(super) struct Machine {
    kernel: String,
    cores: usize,
    cgroup: String,
    store: String,
    user: u32,
}

impl Machine {
    pub(super) async fn here(ground: &Ground) -> Self {
        let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim().to_owned();
        let cores = std::thread::available_parallelism().map_or(0, usize::from);
        let walls = ground.provider.probe().await.walls;
        let limits = walls.iter().filter(|finding| finding.holds && finding.wall.ends_with("_limit"));
        let mut versions: Vec<&str> =
            limits.filter_map(|finding| Some(finding.detail.strip_prefix("cgroup ")?.split_once(',')?.0)).collect();
        versions.sort_unstable();
        versions.dedup();
        let cgroup = if versions.is_empty() { "none".to_owned() } else { versions.join("+") };
        let user = std::fs::metadata("/proc/self").map_or(0, |process| process.uid());
        let store = ground.provider.store().await.map_or_else(|error| error.to_string(), str::to_owned);
        Self { kernel, cores, cgroup, store, user }
    }
}

/// One JSON object: figures by their keys, `null` where there are none, with the reasons under `missing`.
pub(super) fn json(machine: &Machine, figures: &[Figure]) -> String {
    let (mut object, mut missing) = (Map::new(), Map::new());
    for figure in figures {
        let stem = figure.key.strip_suffix("_p50").unwrap_or(figure.key);
        object.insert(figure.key.to_owned(), number(figure.at(50)));
        object.insert(format!("{stem}_p95"), number(figure.at(95)));
        object.insert(format!("{stem}_n"), figure.count().into());
        if let Some(why) = figure.missing() {
            missing.insert(figure.key.to_owned(), clean(why).into());
        }
    }
    object.insert("missing".to_owned(), Value::Object(missing));
    let Machine { kernel, cores, cgroup, store, user } = machine;
    let machine =
        json!({ "kernel": kernel, "cores": cores, "cgroup": cgroup, "workspace_store": store, "user_id": user });
    object.insert("machine".to_owned(), machine);
    format!("{}\n", Value::Object(object))
}

fn number(value: Option<f64>) -> Value {
    value.map_or(Value::Null, |value| json!((value * 1_000.0).round() / 1_000.0))
}

/// A table for people.
pub(super) fn table(machine: &Machine, figures: &[Figure]) -> String {
    let Machine { kernel, cores, cgroup, store, user } = machine;
    let mut out = format!(
        "machine: {cores} cores, Linux {}, cgroup {cgroup}, workspaces: {}, user {user}\n",
        clean(kernel),
        clean(store)
    );
    let _ = writeln!(out, "{:<58} {:>10} {:>10} {:>5}", "", "median", "p95", "n");
    for figure in figures {
        let _ = match (figure.at(50), figure.at(95)) {
            (Some(median), Some(most)) => writeln!(
                out,
                "{:<58} {:>10} {:>10} {:>5}",
                format!("{}, {}", figure.says, figure.unit),
                shown(median),
                shown(most),
                figure.count()
            ),
            _ => writeln!(
                out,
                "{:<58} –  {}",
                figure.says,
                clean(figure.missing().unwrap_or_default()).replace('\n', " ")
            ),
        };
    }
    out
}

/// Three significant digits are what such a measurement is worth.
fn shown(value: f64) -> String {
    match value.abs() {
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine() -> Machine {
        Machine { kernel: "6.1".into(), cores: 2, cgroup: "v2".into(), store: "a pool".into(), user: 0 }
    }

    #[test]
    fn a_figure_that_can_not_be_had_is_null_with_its_reason() {
        let had = Figure::ms("cold_ms_p50", "cold", Ok((1..=100).map(f64::from).collect()));
        let rate = Figure { worse: Worse::Less, unit: "MB/s", ..Figure::ms("rate", "r", Ok(vec![9.0, 1.0, 5.0])) };
        let missing = Figure::ms("fork_ms_p50", "fork", Err("no pool\nhere".into()));
        let figures = [had, rate, missing];
        let told: Value = serde_json::from_str(&json(&machine(), &figures)).unwrap();
        assert_eq!(
            (&told["cold_ms_p50"], &told["cold_ms_p95"], &told["cold_ms_n"]),
            (&51.0.into(), &96.0.into(), &100.into())
        );
        assert_eq!((&told["rate"], &told["rate_p95"]), (&5.0.into(), &1.0.into()), "the worst of a rate is the lowest");
        assert_eq!((&told["fork_ms_p50"], &told["fork_ms_n"]), (&Value::Null, &0.into()));
        assert!(told["missing"]["fork_ms_p50"].as_str().unwrap().contains("no pool"));
        assert_eq!(told["machine"]["workspace_store"], "a pool");
        let table = table(&machine(), &figures);
        assert_eq!(table.lines().count(), 5, "{table}");
    }
}
