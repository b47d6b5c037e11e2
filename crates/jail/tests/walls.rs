//! Takes walls down, one set after another, and sees that what they hold works then; and that each wall of a set by itself
//! still holds it. Only in the guest machine: elsewhere no wall comes down.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::disallowed_methods,
    reason = "a test with a main of its own is a test"
)]

mod support;

use std::collections::BTreeSet;
use std::process::ExitCode;
use std::sync::Arc;
use support::World;
use support::hostile::attempts::{self, WORKED};

const MODE: &str = "--down=";
/// Every wall comes down once, and not each set of them.
const ONCE: &str = "--once";

fn main() -> ExitCode {
    if let Some(code) = support::head::part() {
        return code;
    }
    if let Some(down) = support::head::argument(MODE) {
        let walls: Vec<&str> = down.split(',').filter(|wall| !wall.is_empty()).collect();
        jail::take_down(&walls).unwrap();
        let data = support::hostile::data();
        let launcher = jail::launch().unwrap();
        return support::run(
            launcher,
            data.path(),
            cases![what_the_walls_hold_works, what_they_hold_is_red, limits_that_are_down_limit_nothing],
        );
    }
    if let Err(why) = jail::take_down(&[]) {
        support::skip("walls", &why);
        return ExitCode::SUCCESS;
    }
    let sets = if std::env::args().any(|argument| argument == ONCE) { once(sets()) } else { sets() };
    support::head::each(sets.into_iter().map(|set| {
        println!("without {set}:");
        format!("{MODE}{set}")
    }))
}

/// Of these sets so many that every wall comes down once: those first that bring the most.
fn once(mut sets: BTreeSet<String>) -> BTreeSet<String> {
    let mut chosen = BTreeSet::new();
    let mut down = BTreeSet::new();
    loop {
        let fresh = |set: &str| set.split(',').filter(|wall| !down.contains(*wall)).count();
        let Some(best) = sets.iter().max_by_key(|set| fresh(set)).filter(|set| fresh(set) > 0).cloned() else {
            return chosen;
        };
        sets.remove(&best);
        down.extend(best.split(',').map(str::to_owned));
        chosen.insert(best);
    }
}

/// The sets that attempts name, each set without one of its walls, and the limits.
fn sets() -> BTreeSet<String> {
    let mut sets: BTreeSet<String> = ["ipc_namespace", "memory_limit", "process_limit"].map(str::to_owned).into();
    for row in support::hostile::attempts() {
        sets.insert(row.walls.join(","));
        for standing in row.walls {
            let others: Vec<&str> = row.walls.iter().copied().filter(|wall| wall != standing).collect();
            sets.insert(others.join(","));
        }
    }
    sets.extend(support::hostile::table::sets());
    sets.remove("");
    sets
}

fn down() -> Vec<String> {
    let mode = std::env::args().find_map(|argument| Some(argument.strip_prefix(MODE)?.to_owned()));
    mode.unwrap().split(',').map(str::to_owned).collect()
}

/// Every attempt that this set of walls matters to: it works when all of its walls are in the set, else it does not.
async fn what_the_walls_hold_works(world: Arc<World>) {
    use std::os::linux::net::SocketAddrExt as _;
    let down = down();
    let name = format!("topside-walls-{}", std::process::id());
    let address = std::os::unix::net::SocketAddr::from_abstract_name(&name).unwrap();
    let _listener = std::os::unix::net::UnixListener::bind_addr(&address).unwrap();
    let server = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = server.local_addr().unwrap().port().to_string();
    let sandbox = world.sandbox().await;
    let mut wrong = Vec::new();
    let mut tried = 0;
    for row in support::hostile::attempts() {
        if !row.walls.iter().any(|wall| down.iter().any(|down| down == wall)) {
            continue;
        }
        tried += 1;
        let further = match row.name {
            "an abstract name" => name.as_str(),
            "the host's own address" => port.as_str(),
            _ => "1",
        };
        let got = attempts::inside(&sandbox, row.name, &[further]).await;
        let all_down = row.walls.iter().all(|wall| down.iter().any(|down| down == wall));
        let worked = got == WORKED || row.unknown().is_some_and(|unknown| got == unknown);
        if worked != all_down {
            wrong.push(format!("{} (held by {:?}): {got}", row.name, row.walls));
        }
    }
    sandbox.close().await;
    println!("{tried} attempts");
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// Every case that this set of walls holds fails without it.
async fn what_they_hold_is_red(world: Arc<World>) {
    let cases = support::hostile::table::red_without(&down());
    let (mut green, tried) = (Vec::new(), cases.len());
    for (name, case) in cases {
        if tokio::spawn(case(Arc::clone(&world))).await.is_ok() {
            green.push(name);
        }
    }
    println!("{tried} cases");
    assert!(green.is_empty(), "green without {:?}: {green:?}", down());
}

async fn limits_that_are_down_limit_nothing(world: Arc<World>) {
    use sandbox::{Provider as _, Workspace};
    let down = down();
    let mut spec = world.spec(Workspace::Scratch);
    spec.limits.memory_bytes_max = 64 << 20;
    spec.limits.processes_max = 32;
    if down == ["ipc_namespace"] {
        let (one, other) = (world.sandbox().await, world.sandbox().await);
        // Of a key that no other case has: a segment stays where it is everybody's.
        let key = ["28854"];
        assert_eq!(attempts::inside(&one, "make a segment", &key).await, WORKED);
        assert_eq!(attempts::inside(&other, "make a segment", &key).await, "EEXIST", "one finds what the other made");
        one.close().await;
        other.close().await;
    }
    let sandbox = world.provider.create(spec).await.unwrap();
    if down == ["memory_limit"] {
        assert_eq!(attempts::inside(&sandbox, "take memory", &[]).await, WORKED);
    }
    if down == ["process_limit"] {
        // What stops it is what stops every test here, or its own patience.
        let got = attempts::inside(&sandbox, "fork until refused", &["200"]).await;
        assert_eq!(got, "200 made");
    }
    sandbox.close().await;
}
