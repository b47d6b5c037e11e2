//! A call whose worker died, settled through a process that drives nothing.

use crate::fleet::Fleet;
use crate::gate::Gate;
use crate::outside::PAY;
use crate::service::text;

/// The tool's and the project's, in seconds.
const TIMEOUT: u64 = 2;
const LEASE: u64 = 3;

#[test]
fn a_doubt_is_settled_by_the_projects_lease_where_nothing_is_driven() {
    let gate = Gate::closed();
    let tool = gate.tool("/pay", &format!("timeout_seconds: {TIMEOUT}\n"));
    let files = [
        ("topside.yaml", &*format!("default_agent: worker\nworker: {{lease_seconds: {LEASE}}}\n")),
        ("agents/worker.md", "---\nmodel: main\ntools: [pay]\n---\nYou pay.\n"),
        ("models/main.yaml", "main: {provider: script, transcript: main.yaml}\n"),
        ("main.yaml", PAY),
        ("tools/pay.yaml", &tool),
        ("policies/open.cedar", "@id(\"open\")\npermit (principal, action, resource);\n"),
    ];
    let Some(fleet) = Fleet::of("a_doubt_is_settled_by_the_projects_lease_where_nothing_is_driven", &files) else {
        return;
    };
    let door = fleet.door();
    let first = fleet.worker();
    let run = door.begin("s", "Pay ten.");
    gate.until(1);
    first.kill();
    let second = fleet.worker();
    let waiting = door.standing(&run, "needs_resolution");
    let call = waiting["in_doubt"][0].as_str().unwrap_or_else(|| panic!("{waiting}")).to_owned();
    let body = format!(r#"{{"call_id": "{call}", "outcome": "happened", "output": "Receipt 7."}}"#);
    // While the first may still act it is refused, for as long as that worker's lease and the call's time limit go at most.
    let settled = loop {
        let answer = door.post(&format!("/runs/{run}/resolve"), &body);
        if answer.status == 202 {
            break answer;
        }
        assert_eq!(answer.refusal(), "409 resolve_too_early");
        let told = text(&answer.json(), "hint");
        let wait_ms = told.split_once("try again in ").and_then(|(_, rest)| rest.split(' ').next()?.parse().ok());
        let wait_ms: u64 = wait_ms.unwrap_or_else(|| panic!("{told}"));
        assert!(wait_ms <= (TIMEOUT + LEASE) * 1_000, "{told}");
    };
    settled.was(202);
    assert_eq!(text(&door.standing(&run, "completed"), "reply"), "Receipt 7.");
    second.stop();
    door.stop();
    assert_eq!(gate.came().len(), 1);
}
