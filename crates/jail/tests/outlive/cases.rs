//! What must hold when a harness or its launcher dies.

use super::harness::{Harness, WARM};
use super::stranger::say;
use super::traces::{Kin, all_gone, descriptors, family, groups, launcher_of, loops, nothing_left, runs, until};
use domain::{Id, id};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use stdx::{Clock, Random};

pub(crate) type Case = (&'static str, fn(Option<u32>));

macro_rules! cases {
    ($($name:ident),* $(,)?) => { vec![$((stringify!($name), $name as fn(Option<u32>))),*] };
}

pub(crate) fn all() -> Vec<Case> {
    cases![
        output_is_continuous_whatever_is_killed,
        a_terminal_goes_on,
        a_blocked_writer_loses_nothing,
        an_end_is_kept_until_it_was_taken,
        what_was_taken_is_gone,
        a_handle_that_is_dropped_ends_its_command,
        nothing_is_left_after_the_grace,
        nothing_is_left_after_a_farewell,
        a_killed_launcher_leaves_nothing,
        a_killed_launcher_is_followed_by_another,
        what_nobody_takes_over_ends,
        a_stale_epoch_is_refused,
        another_workspace_is_another_sandbox,
        a_second_harness_has_its_own,
        strangers_are_refused,
        garbage_harms_nobody,
        an_older_launcher_makes_way,
        adoptions_leak_nothing,
        what_was_made_ahead_ends_and_what_was_taken_lives,
    ]
}

/// Long enough for any case.
const GRACE_MS: u64 = 60_000;

/// The version of the launcher's door.
const VERSION: i64 = 5;

/// What a harness of this version says first.
fn hello(version: i64) -> String {
    format!(r#"{{"number":1,"request":{{"Hello":{{"version":{version}}}}}}}"#)
}

struct Place {
    data: tempfile::TempDir,
    user: Option<u32>,
    session: String,
}

impl Place {
    fn new(user: Option<u32>) -> Self {
        let data = tempfile::tempdir().unwrap();
        if let Some(user) = user {
            std::os::unix::fs::chown(data.path(), Some(user), Some(user)).unwrap();
        }
        let session: Id<id::Session> = Id::new(Clock::system().wall_ms(), Random::system().bytes());
        Self { data, user, session: session.to_string() }
    }

    fn harness(&self, grace_ms: u64) -> Harness {
        Harness::start(self.data.path(), self.user, grace_ms)
    }

    fn path(&self) -> &Path {
        self.data.path()
    }

    /// A harness with a fresh sandbox under epoch 1.
    fn fresh(&self, grace_ms: u64) -> (Harness, String) {
        let mut harness = self.harness(grace_ms);
        let id = harness.ask(&format!("fresh {} 1", self.session));
        assert!(!id.starts_with("error"), "{id}");
        (harness, id)
    }

    /// The next harness, which goes on under `epoch` with what `generation` had.
    fn kept(&self, epoch: u64, generation: u64) -> (Harness, String) {
        let mut harness = self.harness(GRACE_MS);
        let id = harness.ask(&format!("kept {} {epoch} {generation}", self.session));
        (harness, id)
    }
}

/// What `seq 1 last` writes.
fn lines(last: u32) -> Vec<u8> {
    (1..=last).flat_map(|number| format!("{number}\n").into_bytes()).collect()
}

fn output_is_continuous_whatever_is_killed(user: Option<u32>) {
    const LAST: u32 = 400_000;
    let place = Place::new(user);
    let (mut harness, id) = place.fresh(GRACE_MS);
    harness.expect(&format!("start lines 1 seq 1 {LAST}; exit 7"), "ok");
    harness.expect("start - 1 sleep 4242", "ok");
    harness.ask("read lines 100000");
    for epoch in 2..6 {
        // It is killed with a read under way, of which nobody knows how far it got.
        let read = harness.has("lines").len();
        harness.kill();
        let (next, same) = place.kept(epoch, epoch - 1);
        harness = next;
        assert_eq!(same, id, "it is the same sandbox");
        assert!(harness.has("lines").len() >= read);
        let position = harness.has("lines").len();
        harness.expect(&format!("attach lines {position}"), "ok");
        harness.expect(&format!("attach lines {position}"), "error sandbox_no_process");
        assert_ne!(harness.ask("read lines 300000"), "nobody");
        if epoch % 2 == 0 {
            harness.expect("taken lines", "ok");
        }
    }
    harness.expect("read lines 100000000", "exit 7");
    assert_eq!(harness.has("lines"), lines(LAST), "none lost, none twice");
    // What had no name ended with the harness that started it.
    harness.expect("start count 5 pgrep -c sleep", "ok");
    harness.expect("read count 100", "exit 1");
    assert_eq!(harness.has("count"), b"0\n");
    harness.end();
}

fn a_terminal_goes_on(user: Option<u32>) {
    let place = Place::new(user);
    let (mut harness, _) = place.fresh(GRACE_MS);
    harness.expect("terminal tty 1 stty -echo; while read word; do echo got $word; stty size; done; exit 5", "ok");
    harness.expect("write tty one", "ok");
    harness.expect("until tty 24 80", "ok");
    harness.kill();
    let (mut harness, _) = place.kept(2, 1);
    let position = harness.has("tty").len();
    harness.expect(&format!("attach tty {position}"), "ok");
    harness.expect("resize tty", "ok");
    harness.expect("write tty two", "ok");
    harness.expect("until tty 50 132", "ok");
    harness.expect("eof tty", "ok");
    harness.expect("read tty 10000", "exit 5");
    let seen = String::from_utf8(harness.has("tty")).unwrap().replace('\r', "");
    assert!(seen.ends_with("got one\n24 80\ngot two\n50 132\n"), "{seen}");
    harness.end();
}

fn a_blocked_writer_loses_nothing(user: Option<u32>) {
    const LAST: u32 = 3_000_000;
    let place = Place::new(user);
    let (mut harness, _) = place.fresh(GRACE_MS);
    harness.expect(&format!("start flood 1 seq 1 {LAST}"), "ok");
    harness.expect("start other 1 echo fine", "ok");
    // Read, never said to be taken: after a restart it is there again.
    harness.ask("read flood 1000000");
    harness.kill();
    let (mut harness, _) = place.kept(2, 1);
    let kept = |harness: &mut Harness| {
        let told = harness.ask("commands");
        let flood = told.split(", ").find_map(|one| one.strip_prefix("flood ")).unwrap().to_owned();
        let (from, to) = flood.split_once("..").unwrap();
        let to = to.split(' ').next().unwrap();
        (from.parse::<u64>().unwrap(), to.parse::<u64>().unwrap())
    };
    let (from, mut to) = kept(&mut harness);
    assert_eq!(from, 0, "it was read, not taken");
    // The writer is blocked once what is kept does not grow while others run.
    until("the writer is blocked", || {
        let before = to;
        harness.expect("start look 2 for i in 1 2 3 4 5 6 7 8 9; do /bin/true; done", "ok");
        harness.expect("read look 1", "exit 0");
        harness.expect("taken look", "ok");
        to = kept(&mut harness).1;
        before == to
    });
    assert!((7 << 20..=(8 << 20) + (64 << 10)).contains(&to), "{to} bytes are kept");
    harness.expect("attach other 0", "ok");
    harness.expect("read other 100", "exit 0");
    assert_eq!(harness.has("other"), b"fine\n");
    std::fs::remove_file(place.path().join("log-flood")).unwrap();
    harness.expect("attach flood 0", "ok");
    harness.expect("read flood 100000000", "exit 0");
    assert!(harness.has("flood") == lines(LAST), "none lost, none twice");
    harness.end();
}

fn an_end_is_kept_until_it_was_taken(user: Option<u32>) {
    let place = Place::new(user);
    let (mut harness, _) = place.fresh(GRACE_MS);
    harness.expect("start short 1 echo said; exit 3", "ok");
    harness.expect("start again 1 echo twice", "ok");
    harness.expect("start again 1 echo twice", "error sandbox_command");
    harness.kill();
    for epoch in 2..4 {
        let (mut harness, _) = place.kept(epoch, epoch - 1);
        until("both have ended", || harness.ask("commands") == "again 0..6 0, short 0..5 3");
        harness.expect("living", &format!("true {epoch} true 2"));
        harness.expect("attach short 9", "error sandbox_output_gone");
        harness.expect("attach short 0", "ok");
        harness.expect("read short 100", "exit 3");
        harness.kill();
    }
    let (mut harness, _) = place.kept(4, 3);
    assert_eq!(harness.has("short"), b"said\nsaid\n", "each harness got it whole");
    harness.expect("attach short 5", "ok");
    harness.expect("taken short 5", "ok");
    harness.expect("read short 100", "exit 3");
    harness.expect("commands", "again 0..6 0, short 5..5 3");
    harness.expect("taken short", "ok");
    harness.expect("commands", "again 0..6 0");
    harness.expect("attach short 5", "error sandbox_no_process");
    harness.end();
}

fn what_was_taken_is_gone(user: Option<u32>) {
    let place = Place::new(user);
    let (mut harness, _) = place.fresh(GRACE_MS);
    harness.expect("start lines 1 seq 1 2000; exec sleep 4242", "ok");
    harness.ask(&format!("read lines {}", lines(2_000).len()));
    harness.expect("taken lines 1000", "ok");
    // Requests are seen to in order.
    harness.expect("commands", "lines 1000..8893 -1");
    harness.kill();
    let (mut harness, _) = place.kept(2, 1);
    harness.expect("commands", "lines 1000..8893 -1");
    harness.expect("attach lines 999", "error sandbox_output_gone");
    harness.expect("attach lines 1000", "ok");
    harness.expect("read lines 7893", "8893");
    assert_eq!(harness.has("lines")[8_893..], lines(2_000)[1_000..]);
    harness.expect("kill lines", "exit 137");
    harness.expect("taken lines", "ok");
    harness.expect("commands", "");
    harness.end();
}

fn a_handle_that_is_dropped_ends_its_command(user: Option<u32>) {
    let place = Place::new(user);
    let (mut harness, _) = place.fresh(GRACE_MS);
    harness.expect("start flood 1 yes", "ok");
    harness.expect("drop flood", "ok");
    until("it is forgotten", || harness.ask("commands").is_empty());
    harness.expect("start flood 1 echo the name is free", "ok");
    harness.expect("read flood 100", "exit 0");
    harness.end();
}

fn nothing_is_left_after_the_grace(user: Option<u32>) {
    const SHORT_MS: u64 = 300;
    let place = Place::new(user);
    let (mut harness, _) = place.fresh(SHORT_MS);
    harness.expect("start lines 1 setsid sleep 4242 & seq 1 100000000", "ok");
    let launcher = launcher_of(harness.id());
    until("it is busy", || runs(launcher.process, "sleep") && runs(launcher.process, "seq"));
    let family = family(launcher.process);
    assert_eq!(loops(place.path()) > 0, user.is_none(), "as root a workspace is a loop device");
    assert!(place.path().join("launcher/socket").exists());
    let before = Instant::now();
    harness.kill();
    until("the launcher is gone", || !launcher.is_alive());
    assert!(before.elapsed() >= Duration::from_millis(SHORT_MS), "it waits: {:?}", before.elapsed());
    nothing_left(place.path(), &family);
    assert_eq!(groups(launcher.process), Vec::<PathBuf>::new());
    assert!(!place.path().join("launcher/socket").exists());
    let (harness, id) = place.kept(2, 1);
    assert!(!id.starts_with("error"), "the workspace is kept: {id}");
    harness.end();
}

fn nothing_is_left_after_a_farewell(user: Option<u32>) {
    let place = Place::new(user);
    let (mut harness, _) = place.fresh(GRACE_MS);
    harness.expect("start lines 1 setsid sleep 4242 & seq 1 100000000", "ok");
    let launcher = launcher_of(harness.id());
    until("it is busy", || runs(launcher.process, "sleep") && runs(launcher.process, "seq"));
    let family = family(launcher.process);
    harness.end();
    nothing_left(place.path(), &family);
    assert_eq!(groups(launcher.process), Vec::<PathBuf>::new());
    assert!(!place.path().join("launcher/socket").exists());
}

fn a_killed_launcher_leaves_nothing(user: Option<u32>) {
    let place = Place::new(user);
    let (mut harness, first) = place.fresh(GRACE_MS);
    harness.expect("start lines 1 setsid sleep 4242 & seq 1 100000000", "ok");
    let launcher = launcher_of(harness.id());
    until("it is busy", || runs(launcher.process, "sleep") && runs(launcher.process, "seq"));
    let family = family(launcher.process);
    kill(&launcher);
    all_gone(&family);
    harness.kill();
    // The pool of workspaces is mounted as long as the harness has it open.
    nothing_left(place.path(), &family);
    // Its socket's file is still there, and means nothing.
    assert!(place.path().join("launcher/socket").exists());
    let (harness, id) = place.kept(2, 1);
    assert!(!id.starts_with("error") && id != first, "{id}");
    until("the next one sweeps", || groups(launcher.process).is_empty());
    harness.end();
}

fn a_killed_launcher_is_followed_by_another(user: Option<u32>) {
    let place = Place::new(user);
    let (mut harness, mut before) = place.fresh(GRACE_MS);
    let mut launchers = vec![launcher_of(harness.id())];
    for epoch in 2..5 {
        harness.expect(&format!("start alive {} exec sleep 4242", epoch - 1), "ok");
        let launcher = launchers[launchers.len() - 1].clone();
        let family = family(launcher.process);
        kill(&launcher);
        all_gone(&family);
        let id = harness.ask(&format!("kept {} {epoch} {}", place.session, epoch - 1));
        assert!(!id.starts_with("error") && id != before, "the same harness goes on: {id}");
        harness.expect("living", &format!("true {epoch} true 0"));
        let next = launcher_of(harness.id());
        assert!(launchers.iter().all(|one| !one.is_alive()), "{launchers:?}, {next:?}");
        until("the next one sweeps", || groups(launcher.process).is_empty());
        (before, launchers) = (id, [launchers, vec![next]].concat());
    }
    // The last of them is at home where the first was, and outlives the harness as that would have.
    harness.expect("start alive 4 exec sleep 4242", "ok");
    harness.kill();
    let (mut harness, id) = place.kept(5, 4);
    assert_eq!(id, before);
    harness.expect("commands", "alive 0..0 -1");
    harness.end();
}

fn kill(kin: &Kin) {
    let process = rustix::process::Pid::from_raw(i32::try_from(kin.process).unwrap()).unwrap();
    rustix::process::kill_process(process, rustix::process::Signal::KILL).unwrap();
}

fn what_nobody_takes_over_ends(user: Option<u32>) {
    // Enough for the next harness to come, on a machine that has much else to do.
    const COMES_MS: u64 = 3_000;
    let place = Place::new(user);
    let (mut harness, _) = place.fresh(COMES_MS);
    harness.expect("start sleep 1 exec sleep 4242", "ok");
    let launcher = launcher_of(harness.id());
    harness.kill();
    let mut harness = place.harness(COMES_MS);
    harness.expect("living", "true 1 true ?");
    until("it ended", || harness.ask("living").is_empty());
    until("its processes are gone", || !runs(launcher.process, "sleep"));
    assert!(launcher.is_alive(), "the launcher serves on");
    assert!(!harness.ask(&format!("kept {} 2 1", place.session)).starts_with("error"));
    harness.end();
}

fn a_stale_epoch_is_refused(user: Option<u32>) {
    let place = Place::new(user);
    let mut harness = place.harness(GRACE_MS);
    harness.ask(&format!("fresh {} 5", place.session));
    harness.expect("start alive 5 exec sleep 4242", "ok");
    harness.kill();
    let (mut harness, refused) = place.kept(4, 5);
    assert_eq!(refused, "error sandbox_stale_epoch");
    harness.expect(&format!("fresh {} 4", place.session), "error sandbox_stale_epoch");
    harness.expect("living", "true 5 true ?");
    harness.ask(&format!("kept {} 6 5", place.session));
    harness.expect("commands", "alive 0..0 -1");
    harness.expect("start late 5 true", "error sandbox_command");
    harness.expect("attach alive 0", "ok");
    harness.kill();
    let (harness, refused) = place.kept(7, 5);
    assert!(!refused.starts_with("error"), "the opening under 6 never came to be on record: {refused}");
    harness.kill();
    let (mut harness, refused) = place.kept(8, 4);
    assert_eq!(refused, "error workspace_stale");
    harness.expect("living", "true 7 true ?");
    harness.kill();
    // Nor does the launcher hand it over, whatever who asks has made of the marks.
    let (hello, list) = (hello(VERSION), r#"{"number":2,"request":{"List":{"after":0}}}"#);
    let listed: serde_json::Value = serde_json::from_str(&say(place.path(), user, &[&hello, list])).unwrap();
    let slot = &listed["reply"]["Listed"]["sandboxes"][0]["slot"];
    let adopt = |epoch: u64| {
        let ask = format!(r#"{{"slot":{slot},"epoch":{epoch},"shape":"","walls_optional":[]}}"#);
        say(place.path(), user, &[&hello, &format!(r#"{{"number":2,"request":{{"Adopt":{ask}}}}}"#)])
    };
    assert_eq!(adopt(6), r#"{"number":2,"reply":{"Failed":{"Stale":{"epoch":6,"seen":7}}}}"#);
    assert!(adopt(7).contains("another than the one asked for"), "of the same epoch it is the shape");
}

fn another_workspace_is_another_sandbox(user: Option<u32>) {
    let place = Place::new(user);
    let (mut harness, first) = place.fresh(GRACE_MS);
    harness.expect("start alive 1 echo x > f; exec sleep 4242", "ok");
    harness.kill();
    // The same session from nothing: what lived ends first.
    let mut harness = place.harness(GRACE_MS);
    let second = harness.ask(&format!("fresh {} 2", place.session));
    assert!(!second.starts_with("error") && second != first, "{second}");
    harness.expect("commands", "");
    harness.expect("start look 2 ls; pgrep -c sleep", "ok");
    harness.expect("read look 100", "exit 1");
    assert_eq!(harness.has("look"), b"0\n");
    harness.end();
}

fn a_second_harness_has_its_own(user: Option<u32>) {
    let place = Place::new(user);
    let (mut first, _) = place.fresh(GRACE_MS);
    first.expect("start alive 1 exec sleep 4242", "ok");
    let other = Place::new(user);
    let mut second = place.harness(GRACE_MS);
    second.expect("living", "");
    assert_ne!(launcher_of(first.id()).process, launcher_of(second.id()).process);
    assert!(!second.ask(&format!("fresh {} 1", other.session)).starts_with("error"));
    let family = family(launcher_of(second.id()).process);
    second.kill();
    all_gone(&family);
    first.expect("commands", "alive 0..0 -1");
    first.end();
}

fn strangers_are_refused(user: Option<u32>) {
    let hello = hello(VERSION);
    let place = Place::new(user);
    let (harness, _) = place.fresh(GRACE_MS);
    assert_eq!(say(place.path(), user, &[&hello]), r#"{"number":1,"reply":"Owned"}"#, "the same user is heard");
    if rustix::process::geteuid().is_root() {
        use std::os::unix::fs::PermissionsExt as _;
        let stranger = Some(54_321);
        assert_eq!(say(place.path(), stranger, &[&hello]), "! 13", "the directory is closed");
        // Even where every mode is open.
        for (file, mode) in [("", 0o755), ("launcher", 0o755), ("launcher/socket", 0o666)] {
            std::fs::set_permissions(place.path().join(file), std::fs::Permissions::from_mode(mode)).unwrap();
        }
        let told = say(place.path(), stranger, &[&hello]);
        assert!(["closed", "! 104", "! 32"].contains(&told.as_str()), "{told}");
        std::fs::set_permissions(place.path().join("launcher"), std::fs::Permissions::from_mode(0o700)).unwrap();
    }
    harness.end();
}

fn garbage_harms_nobody(user: Option<u32>) {
    let place = Place::new(user);
    let (mut harness, id) = place.fresh(GRACE_MS);
    harness.expect("start alive 1 exec sleep 4242", "ok");
    let (never, known) = (hello(-1), hello(VERSION));
    let rows: [&[&str]; 9] = [
        &["garbage"],
        &["x*90000"],
        &["x*150000"],
        &["{}"],
        &[r#"{"number":1,"request":"Probe"}"#],
        &[r#"{"number":1,"request":"Farewell"}"#],
        &[r#"{"number":1,"request":{"Close":{"slot":1,"grace_ms":0}}}"#],
        &[&never],
        &[&known, r#"{"number":2,"request":"Farewell"}"#],
    ];
    for row in rows {
        let told = say(place.path(), user, row);
        assert!(told == "closed" || told.starts_with("! "), "{row:?}: {told}");
        harness.expect("commands", "alive 0..0 -1");
    }
    // And none of it while nobody has the launcher, but what the same user may say.
    harness.kill();
    for row in &rows[..8] {
        let told = say(place.path(), user, row);
        assert!(told == "closed" || told.starts_with("! "), "{row:?}: {told}");
    }
    let (mut harness, same) = place.kept(2, 1);
    assert_eq!(same, id);
    harness.expect("commands", "alive 0..0 -1");
    harness.end();
}

/// An ordinary user's workspaces are no images, so nothing is made ahead around them.
fn what_was_made_ahead_ends_and_what_was_taken_lives(user: Option<u32>) {
    let place = Place::new(user);
    if user.is_some() {
        return;
    }
    let mut harness = Harness::stocked(place.path(), user, GRACE_MS);
    harness.expect(&format!("warm {}", place.session), "ok");
    harness.expect("living", "");
    let id = harness.ask(&format!("fresh {} 1", place.session));
    harness.expect("start alive 1 echo $HOSTNAME > named; exec sleep 4242", "ok");
    harness.expect("living", "true 1 true 1");
    harness.expect(&format!("warm {}", place.session), "ok");
    let launcher = launcher_of(harness.id());
    let inside = || family(launcher.process).into_iter().filter(|kin| kin.name == "topside-init").count();
    // The launcher keeps as many roots ready without a workspace.
    assert_eq!(inside(), 1 + WARM + WARM, "one is taken, others were made");
    harness.kill();
    until("what is nobody's has ended", || inside() == 1 + WARM);
    assert!(launcher.is_alive(), "it waits for the next harness");
    let (mut harness, same) = place.kept(2, 1);
    assert_eq!(same, id);
    harness.expect("commands", "alive 0..0 -1");
    harness.expect("start late 1 true", "error sandbox_command");
    harness.end();
}

fn an_older_launcher_makes_way(user: Option<u32>) {
    const PROBE: &str = r#"{"number":2,"request":"Probe"}"#;
    const FAREWELL: &str = r#"{"number":2,"request":"Farewell"}"#;
    let (place, other) = (Place::new(user), hello(1));
    let (mut harness, first) = place.fresh(GRACE_MS);
    harness.expect("start alive 1 exec sleep 4242", "ok");
    let launcher = launcher_of(harness.id());
    assert_eq!(say(place.path(), user, &[&other]), r#"{"number":1,"reply":"Owned"}"#);
    harness.kill();
    let welcome = format!(r#"{{"number":1,"reply":{{"Welcome":{{"version":{VERSION}}}}}}}"#);
    assert_eq!(say(place.path(), user, &[&other]), welcome);
    assert_eq!(say(place.path(), user, &[&other, PROBE]), "closed");
    assert!(launcher.is_alive());
    let family = family(launcher.process);
    say(place.path(), user, &[&other, FAREWELL]);
    nothing_left(place.path(), &family);
    let (harness, id) = place.kept(2, 1);
    assert!(!id.starts_with("error") && id != first, "{id}");
    harness.end();
}

fn adoptions_leak_nothing(user: Option<u32>) {
    /// The first ones are not counted: until then what stands ready for the next sandbox may still be growing.
    const FIRST: u64 = 5;
    const CYCLES: u64 = 60;
    let place = Place::new(user);
    let (mut harness, id) = place.fresh(GRACE_MS);
    harness.expect("start alive 1 exec sleep 4242", "ok");
    let launcher = launcher_of(harness.id()).process;
    until("it runs", || runs(launcher, "sleep"));
    let busy = |kin: &Kin| kin.name == "topside-init" && runs(kin.process, "sleep");
    let first = family(launcher).into_iter().find(busy).unwrap().process;
    // Who can't look at the descriptors of what is not dumpable sees none, always.
    let settled = || (descriptors(launcher).len(), descriptors(first).len());
    let mut before = (0, 0);
    for epoch in 2..CYCLES + 2 {
        harness.kill();
        let (next, same) = place.kept(epoch, epoch - 1);
        harness = next;
        assert_eq!(same, id);
        harness.expect("attach alive 0", "ok");
        if epoch < FIRST + 2 {
            let now = settled();
            before = (now.0.max(before.0), now.1.max(before.1));
        } else {
            // What the last one left is closed as soon as it is heard of.
            until(&format!("no more than {before:?}, now {:?}", settled()), || {
                let now = settled();
                now.0 <= before.0 && now.1 <= before.1
            });
        }
    }
    assert!(before.0 > 3);
    harness.end();
}
