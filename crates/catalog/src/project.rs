//! `topside.yaml` and `prices.yaml`: from checked values to settings and prices; and the readers of checked values that other
//! kinds of files share.

use crate::problem::{Rule, shown};
use crate::settings::{
    Breaker, Concurrency, Database, IDLE_MAX, KEEP_PARKED_MS, Retention, Retries, Settings, WARM_MAX, WARM_MIN,
    WEBHOOK_EVENTS_DEFAULT, Webhook, Worker,
};
use crate::shape::{Check, Missing, milli};
use crate::yaml::{Node, Place, Value};
use crate::{Contents, SwitchedOff, roots, urls};
use domain::contract::Retry;
use domain::template;
use domain::usage::Price;
use sandbox::Limits;
use std::collections::BTreeMap;

/// `topside.yaml`.
#[derive(Debug, Default)]
pub(crate) struct Project {
    pub(crate) default_agent: Option<(String, Place)>,
    pub(crate) settings: Settings,
    /// The models whose runs are limited, with where that stands.
    pub(crate) models_limited: Vec<(String, Place)>,
    /// What does not serve because a variable is not set.
    pub(crate) switched_off: Vec<SwitchedOff>,
    /// Roots that steps make.
    pub(crate) templates: BTreeMap<String, roots::Drafted>,
}

/// Something that was declared.
#[derive(Debug)]
pub(crate) struct Declared<T> {
    /// What it says; `None` when it is wrong, or nothing can be said because a variable is not set.
    pub(crate) value: Option<T>,
    /// Variables it needs that are not set.
    pub(crate) missing: Vec<Missing>,
    pub(crate) file: String,
    pub(crate) at: Place,
}

/// Reads a checked value. A whole number that was checked to lie within bounds fits its type.
pub(crate) fn number<T: TryFrom<i64>>(node: &Node, key: &str, default: T) -> T {
    node.get(key).and_then(Node::integer).and_then(|value| T::try_from(value).ok()).unwrap_or(default)
}

/// The text of a key.
pub(crate) fn text(node: &Node, key: &str) -> Option<String> {
    node.get(key).and_then(Node::text).map(str::to_owned)
}

/// The text of a key that was checked to be there.
pub(crate) fn required(node: &Node, key: &str) -> String {
    text(node, key).unwrap_or_default()
}

/// The texts of a list.
pub(crate) fn texts(node: &Node, key: &str) -> Vec<String> {
    let items = node.get(key).map(Node::items).unwrap_or_default();
    items.iter().filter_map(Node::text).map(str::to_owned).collect()
}

/// The texts of a map.
pub(crate) fn text_map(node: &Node, key: &str) -> BTreeMap<String, String> {
    let entries = node.get(key).map(Node::entries).unwrap_or_default();
    entries.iter().filter_map(|entry| Some((entry.key.clone(), entry.node.text()?.to_owned()))).collect()
}

/// One of the domain's words; the shape admits no others.
pub(crate) fn word<T: serde::de::DeserializeOwned>(node: &Node, key: &str) -> Option<T> {
    let text = node.get(key).and_then(Node::text)?;
    serde_json::from_value(serde_json::Value::String(text.to_owned())).ok()
}

pub(crate) fn project(node: &Node, check: &mut Check<'_>) -> Project {
    let mut settings = Settings::default();
    if text(node, "contents").as_deref() == Some("plain") {
        settings.contents = Contents::Plain;
    }
    if let Some(sandbox) = node.get("sandbox") {
        settings.sandbox.walls_optional = texts(sandbox, "walls_optional");
        settings.sandbox.landlock_version_min = number(sandbox, "landlock_version_min", 0);
        settings.sandbox.host_directories = texts(sandbox, "host_directories").into_iter().map(Into::into).collect();
        settings.sandbox.workspaces_bytes_max =
            sandbox.get("workspaces_bytes_max").map(|_| number(sandbox, "workspaces_bytes_max", 0));
        settings.sandbox.warm_max = number(sandbox, "warm_max", WARM_MAX);
        settings.sandbox.warm_min = number(sandbox, "warm_min", WARM_MIN).min(settings.sandbox.warm_max);
        settings.sandbox.keep_parked_ms = number(sandbox, "keep_parked_ms", KEEP_PARKED_MS);
        settings.sandbox.keep_idle_ms = number(sandbox, "keep_idle_ms", 0);
        settings.sandbox.idle_max = number(sandbox, "idle_max", IDLE_MAX);
        if let Some(limits) = sandbox.get("limits") {
            settings.sandbox.limits = sandbox_limits(limits);
        }
    }
    if let Some(node) = node.get("concurrency") {
        let per_tenant = node.get("per_tenant").map(|_| number(node, "per_tenant", 0));
        let per_model = node.get("per_model").map(Node::entries).unwrap_or_default();
        let runs = |node: &Node| node.integer().and_then(|runs| u32::try_from(runs).ok());
        let per_model = per_model.iter().filter_map(|entry| Some((entry.key.clone(), runs(&entry.node)?))).collect();
        settings.concurrency = Concurrency { per_tenant, per_model };
    }
    if let Some(node) = node.get("retries") {
        let Retries { model, dependency, sandbox } = Retries::default();
        settings.retries = Retries {
            model: retry(node.get("model"), model, check),
            dependency: retry(node.get("dependency"), dependency, check),
            sandbox: retry(node.get("sandbox"), sandbox, check),
        };
    }
    if let Some(node) = node.get("breaker") {
        let Breaker { failures, open_seconds } = Breaker::default();
        let (failures, open_seconds) = (number(node, "failures", failures), number(node, "open_seconds", open_seconds));
        settings.breaker = Breaker { failures, open_seconds };
    }
    if let Some(node) = node.get("retention") {
        settings.retention =
            Retention { sessions_days: node.get("sessions_days").map(|_| number(node, "sessions_days", 0)) };
    }
    if let Some(node) = node.get("worker") {
        let Worker { lease_seconds, no_progress_seconds_max } = settings.worker;
        settings.worker = Worker {
            lease_seconds: number(node, "lease_seconds", lease_seconds),
            no_progress_seconds_max: number(node, "no_progress_seconds_max", no_progress_seconds_max),
        };
    }
    let mut switched_off = Vec::new();
    if let Some(node) = node.get("database") {
        let database = Database { url: required(node, "url"), direct_url: text(node, "direct_url") };
        settings.database = Some(database).filter(|_| is_on("database", node, check, &mut switched_off));
    }
    for (index, node) in node.get("webhooks").map(Node::items).unwrap_or_default().iter().enumerate() {
        let webhook = webhook(node, check);
        if is_on(&format!("webhooks[{index}]"), node, check, &mut switched_off) {
            settings.webhooks.push(webhook);
        }
    }
    let limited = node.get("concurrency").and_then(|node| node.get("per_model")).map(Node::entries).unwrap_or_default();
    let models_limited = limited.iter().map(|entry| (entry.key.clone(), entry.at)).collect();
    let default_agent = node.get("default_agent").and_then(|node| Some((node.text()?.to_owned(), node.at)));
    let templates =
        node.get("sandbox").and_then(|node| node.get("templates")).map(roots::templates).unwrap_or_default();
    Project { default_agent, settings, models_limited, switched_off, templates }
}

/// Whether every variable that a part needs is set. What it misses does not hold up the whole project.
fn is_on(name: &str, node: &Node, check: &mut Check<'_>, off: &mut Vec<SwitchedOff>) -> bool {
    let places: Vec<Place> = node.entries().iter().map(|entry| entry.node.at).collect();
    let (here, elsewhere): (Vec<_>, Vec<_>) =
        std::mem::take(&mut check.missing).into_iter().partition(|missing| places.contains(&missing.at));
    check.missing = elsewhere;
    off.extend(here.iter().map(|Missing { variable, at }| SwitchedOff {
        part: crate::Part::Setting,
        name: name.to_owned(),
        through: None,
        variable: variable.clone(),
        file: check.file.to_owned(),
        line: at.line,
    }));
    here.is_empty()
}

fn webhook(node: &Node, check: &mut Check<'_>) -> Webhook {
    if let Some(url) = node.get("url") {
        urls::check_whole(url, check);
    }
    if let Some(secret) = node.get("secret")
        && template::references(secret.text().unwrap_or_default()).is_ok_and(|references| references.is_empty())
    {
        let hint = Some("write ${secret.NAME} or ${env.NAME}".to_owned());
        let message = "the secret is written out; expected a reference, since whoever reads the file could sign";
        check.wrong(Rule::BadValue, secret.at, message, hint);
    }
    let mut events = texts(node, "events");
    if node.get("events").is_none() {
        events = WEBHOOK_EVENTS_DEFAULT.map(str::to_owned).into();
    }
    if events.is_empty()
        && let Some(node) = node.get("events")
    {
        check.wrong(Rule::BadValue, node.at, "no event is named; expected at least one", None);
    }
    Webhook { url: required(node, "url"), secret: required(node, "secret"), events }
}

/// A retry; keys that are left out are as in `default`.
pub(crate) fn retry(node: Option<&Node>, default: Retry, check: &mut Check<'_>) -> Retry {
    let Some(node) = node else { return default };
    let ms = |key: &str, default: u64| {
        let declared = node.get(key).and_then(milli).and_then(|ms| u64::try_from(ms).ok());
        declared.unwrap_or(default)
    };
    let retry = Retry {
        attempts: number(node, "attempts", default.attempts),
        backoff_ms: ms("backoff_seconds", default.backoff_ms),
        backoff_ms_max: ms("backoff_seconds_max", default.backoff_ms_max),
        total_ms: ms("total_seconds", default.total_ms),
    };
    if retry.backoff_ms > retry.backoff_ms_max
        && let Some(node) = node.get("backoff_seconds").or_else(|| node.get("backoff_seconds_max"))
    {
        let shown = |ms: u64| shown(&format!("{}", std::time::Duration::from_millis(ms).as_secs_f64()));
        let (first, longest) = (shown(retry.backoff_ms), shown(retry.backoff_ms_max));
        let message = format!("the first wait of {first} s is longer than the longest of {longest} s");
        check.wrong(Rule::BadValue, node.at, message, Some("set both".to_owned()));
    }
    retry
}

fn sandbox_limits(node: &Node) -> Limits {
    let default = Limits::default();
    Limits {
        memory_bytes_max: number(node, "memory_bytes_max", default.memory_bytes_max),
        processes_max: number(node, "processes_max", default.processes_max),
        cpu_milli_max: number(node, "cpu_milli_max", default.cpu_milli_max),
        workspace_bytes_max: number(node, "workspace_bytes_max", default.workspace_bytes_max),
        workspace_inodes_max: number(node, "workspace_inodes_max", default.workspace_inodes_max),
        tmp_bytes_max: number(node, "tmp_bytes_max", default.tmp_bytes_max),
        open_files_max: number(node, "open_files_max", default.open_files_max),
        commands_max: number(node, "commands_max", default.commands_max),
        io_bytes_per_second_max: number(node, "io_bytes_per_second_max", default.io_bytes_per_second_max),
        io_operations_per_second_max: number(
            node,
            "io_operations_per_second_max",
            default.io_operations_per_second_max,
        ),
    }
}

pub(crate) fn prices(node: &Node) -> BTreeMap<String, Price> {
    let price = |node: &Node| Price {
        input: number(node, "input", 0),
        cached_input: node.get("cached_input").map(|_| number(node, "cached_input", 0)),
        output: number(node, "output", 0),
    };
    node.entries().iter().map(|entry| (entry.key.clone(), price(&entry.node))).collect()
}

/// An empty file is a map without keys.
pub(crate) fn as_map(mut node: Node) -> Node {
    if matches!(node.value, Value::Null) {
        node.value = Value::Map(Vec::new());
    }
    node
}
