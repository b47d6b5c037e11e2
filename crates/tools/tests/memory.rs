//! How much memory a flood of output takes. Alone in its process, so that the peak is its own.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the report")]

#[path = "tools/support.rs"]
#[allow(dead_code, reason = "written for all tests of this room")]
mod support;

use serde_json::json;
use support::{World, output, text};

/// Bytes of resident memory, and the most there ever were.
fn memory() -> (u64, u64) {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
    };
    (field("VmRSS:"), field("VmHWM:"))
}

#[tokio::test]
async fn three_hundred_megabytes_take_bounded_memory() {
    let world = World::new(&[]);
    let (before, _) = memory();
    let arguments = json!({"cmd": "yes 'a line of output, again and again' | head -c 300000000; echo; echo end", "yield_time_ms": 30_000});
    let mut outcome = world.call("exec_command", &arguments.to_string()).await;
    let mut total = text(&outcome).to_owned();
    while text(&outcome).contains("Process running") {
        let id = text(&outcome).lines().find_map(|line| line.strip_prefix("Process running with session ID ")).unwrap();
        let id: u64 = id.parse().unwrap();
        outcome = world.call("write_stdin", &json!({"session_id": id, "yield_time_ms": 30_000}).to_string()).await;
        total += text(&outcome);
    }
    assert!(output(&outcome).ends_with("\nend\n"), "{total}");
    let (_, peak) = memory();
    assert!(peak.saturating_sub(before) < 96 << 20, "{before} bytes before, {peak} at most");
    let whole = outcome.whole.unwrap();
    assert!(whole.len() as u64 <= tools::WHOLE_BYTES_MAX + 100, "{}", whole.len());
    assert!(String::from_utf8_lossy(&whole).contains(" bytes were not kept]"));
}
