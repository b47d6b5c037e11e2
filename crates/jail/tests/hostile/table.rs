//! What holds each case: the walls without which it is red, tried in the guest machine where they come down (`tests/walls.rs`),
//! and the limits that are loosened on the machine itself. A case without a row fails, and so does a wall that no row names.

use crate::support::{Case, Outside, World, skip};
use std::collections::BTreeSet;
use std::sync::Arc;

/// How it is shown that a case can fail.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Shown {
    /// Without all of these walls it is red.
    Down(&'static [&'static str]),
    /// With these limits loosened it is red.
    Loose(&'static [&'static str]),
    /// Its attempts name their walls, one by one.
    Attempts,
    /// What holds it holds the named case, too, where it is shown.
    As(&'static str),
    /// Nothing of the kernel's could be taken away: why, and what the case itself is held against.
    Itself(&'static str),
}

use Shown::{As, Attempts, Down, Itself, Loose};

/// Walls that never come down, and why.
pub(crate) const NEVER: &[(&str, &str)] = &[
    ("user_namespace", "without it no other namespace could be made by who has no privileges left"),
    ("mount_namespace", "without it the machine's own root would be taken away"),
    ("pid_namespace", "without it there is no first process, and killing everything inside would kill the machine"),
    (
        "no_new_privileges",
        "Landlock and seccomp ask the kernel for it by themselves; `nobody_becomes_somebody_else` reads it",
    ),
    ("workspace_limit", "its size is loosened instead: `a_full_disk_is_ones_own`"),
];

/// Every case, with everything that is shown of it.
pub(crate) const ROWS: &[(&str, &[Shown])] = &[
    ("who_and_where_it_is", &[Down(&["private_root"]), Down(&["uts_namespace"])]),
    ("no_file_of_the_host", &[Down(&["private_root"])]),
    ("no_variable_of_the_host", &[Down(&["environment"])]),
    ("nothing_is_writable_but_its_own", &[Down(&["landlock", "read_only"])]),
    ("processes_are_limited", &[Down(&["process_limit"]), Loose(&["processes_max"])]),
    ("a_fork_bomb_hurts_nobody_else", &[As("processes_are_limited")]),
    ("memory_is_limited_whichever_way_it_is_taken", &[Down(&["memory_limit"]), Loose(&["memory_bytes_max"])]),
    ("a_command_goes_before_the_first_process", &[Down(&["score"])]),
    ("a_kill_by_memory_is_told", &[Down(&["memory_limit"]), Loose(&["memory_bytes_max"])]),
    ("a_processor_hog_is_slowed", &[Down(&["cpu_limit"]), Loose(&["cpu_milli_max"])]),
    (
        "a_disk_hog_is_slowed",
        &[Down(&["io_limit"]), Loose(&["io_bytes_per_second_max"]), Loose(&["io_operations_per_second_max"])],
    ),
    ("what_is_written_out_for_it", &[As("a_disk_hog_is_slowed")]),
    ("a_slowed_sandbox_ends_at_once", &[Itself("a process that no kill reaches is a case that hangs")]),
    ("what_can_not_be_limited_is_told", &[Itself("the same spec without the limit is shown to start")]),
    ("a_full_disk_is_ones_own", &[Loose(&["workspace_bytes_max"])]),
    ("promises_count", &[Loose(&["workspace_bytes_max"])]),
    ("full_memory_file_systems", &[Loose(&["tmp_bytes_max"])]),
    ("files_are_counted", &[Loose(&["workspace_inodes_max"])]),
    ("output_that_is_no_text", &[Itself("bytes go through unread; what comes out is compared with what went in")]),
    ("who_hears_nothing_is_killed", &[Itself("the same process is shown to survive every signal that it may ignore")]),
    ("stopped_processes_do_not_hang", &[Itself("a kill that nobody carries out is a case that hangs")]),
    (
        "what_is_stopped_before_it_runs_holds_up_nobody",
        &[Itself("a first process that waits for what is stopped kills nobody any more, and the case hangs")],
    ),
    ("an_orphan_dies_with_it", &[Itself("the orphan is shown to live as long as its sandbox does")]),
    ("the_first_process_is_out_of_reach", &[Attempts, Down(&["dumpable", "landlock", "seccomp"])]),
    ("kill_everything", &[Itself("the killer is shown to reach what is its own")]),
    ("nothing_can_be_mounted", &[Attempts, Down(&["landlock", "seccomp", "user_namespace_limit"])]),
    ("no_namespace_is_made_or_joined", &[Attempts, Down(&["seccomp", "user_namespace_limit"])]),
    ("nobody_becomes_somebody_else", &[Down(&["capabilities"])]),
    ("a_program_of_roots_is_an_ordinary_one", &[Itself("the same program is shown to make root of anybody outside")]),
    ("only_harmless_devices", &[Itself("each is shown to be made or opened outside, where it is there")]),
    ("the_kernels_files_tell_and_take_nothing", &[Attempts, Down(&["masks"]), Down(&["cgroup_namespace"])]),
    ("no_program_of_the_host_is_changed", &[Itself("the same write is shown to work outside")]),
    ("the_kernels_large_doors_are_shut", &[Attempts, Down(&["seccomp"])]),
    ("every_syscall_gives_what_the_golden_file_says", &[Down(&["seccomp"])]),
    ("the_door_of_32_bit_programs_is_shut", &[Attempts, Down(&["seccomp"])]),
    ("nobody_types_for_somebody_else", &[Attempts, Down(&["seccomp"])]),
    ("no_socket_leads_outside", &[Attempts, Down(&["network_namespace"])]),
    ("links_lead_nowhere", &[Itself("the same link is shown to lead there for who simply opens it")]),
    ("a_pipe_blocks_nobody", &[Itself("an open that waits is a case that hangs")]),
    ("races_against_every_operation_lead_nowhere", &[Itself("the same path, simply opened, is shown to lead out")]),
    ("names_that_are_attacks", &[Itself("what is listed is compared with what was made")]),
    ("two_sandboxes_share_nothing", &[Down(&["ipc_namespace"])]),
    ("a_flood_of_starts", &[Loose(&["commands_max", "processes_max"])]),
    ("a_killed_harness_leaves_nothing", &[Itself("the family is shown to be there before")]),
    ("nothing_is_left", &[As("hostile_cycles_leave_nothing")]),
    ("hostile_cycles_leave_nothing", &[Itself("something planted in each place that is looked at is seen")]),
    ("nobody_writes_out_the_hosts_disks", &[Attempts, Down(&["seccomp"])]),
    ("every_case_has_its_row", &[Itself("it holds the tables against each other")]),
    ("each_limit_is_what_holds", &[Itself("it is the one that loosens")]),
];

/// What is shown of a case.
fn of(name: &str) -> Option<&'static [Shown]> {
    ROWS.iter().find(|(case, _)| *case == name).map(|(_, shown)| *shown)
}

/// Cases that are red without exactly these walls.
pub(crate) fn red_without(walls: &[String]) -> Vec<Case> {
    let is_it = |shown: &Shown| matches!(shown, Down(set) if set.iter().eq(walls.iter()));
    super::cases().into_iter().filter(|(name, _)| of(name).is_some_and(|shown| shown.iter().any(is_it))).collect()
}

/// Every set of walls that some case is red without.
pub(crate) fn sets() -> BTreeSet<String> {
    let shown = ROWS.iter().flat_map(|(_, shown)| shown.iter());
    shown.filter_map(|shown| if let Down(set) = shown { Some(set.join(",")) } else { None }).collect()
}

pub(crate) async fn every_case_has_its_row(world: Arc<World>) {
    let cases: BTreeSet<&str> = super::cases().iter().map(|(name, _)| *name).collect();
    let rows: BTreeSet<&str> = ROWS.iter().map(|(name, _)| *name).collect();
    assert_eq!(rows.len(), ROWS.len(), "a case has two rows");
    assert_eq!(cases, rows, "cases, and rows");
    for (name, shown) in ROWS {
        assert!(!shown.is_empty(), "{name}");
        for shown in *shown {
            match shown {
                Down(set) => assert!(!set.is_empty() && set.is_sorted(), "{name}: {set:?}"),
                Loose(limits) => {
                    limits.iter().for_each(|limit| Outside::loosen(&mut sandbox::Limits::default(), limit))
                }
                As(other) => {
                    let shown = of(other).unwrap_or_else(|| panic!("{name}: no case `{other}`"));
                    assert!(!shown.iter().any(|shown| matches!(shown, As(_))), "{name}: `{other}` is shown by another");
                }
                Itself(why) => assert!(!why.is_empty(), "{name}"),
                Attempts => {}
            }
        }
    }
    let down: BTreeSet<&str> = ROWS.iter().flat_map(|(_, shown)| *shown).flat_map(walls).copied().collect();
    let tried = super::attempts();
    let sandbox = world.sandbox().await;
    for wall in &sandbox.walls().standing {
        let is_named = down.contains(wall.as_str())
            || tried.iter().any(|row| row.walls.contains(&wall.as_str()))
            || NEVER.iter().any(|(never, _)| never == wall);
        assert!(is_named, "nothing shows what holds without `{wall}`");
    }
    sandbox.close().await;
}

fn walls(shown: &'static Shown) -> &'static [&'static str] {
    if let Down(set) = shown { set } else { &[] }
}

/// With a limit loosened, what it holds is red: on this machine, since nothing is taken away.
pub(crate) async fn each_limit_is_what_holds(world: Arc<World>) {
    let mut green = Vec::new();
    let mut tried = 0;
    for (name, case) in super::cases() {
        let loosened = of(name)
            .into_iter()
            .flatten()
            .filter_map(|shown| if let Loose(limits) = shown { Some(limits) } else { None });
        for limits in loosened {
            if limits.iter().any(|limit| limit.starts_with("io_")) && !super::disk_hog::is_here(&world, name).await {
                continue;
            }
            let loose = Arc::new(World {
                provider: world.provider.loosened(limits),
                data: world.data.clone(),
                root: world.root,
            });
            tried += 1;
            if tokio::spawn(case(loose)).await.is_ok() {
                green.push(format!("{name} with {limits:?} loosened"));
            }
        }
    }
    if tried == 0 {
        skip("each_limit_is_what_holds", "no row loosens anything");
    }
    assert!(green.is_empty(), "{green:#?}");
}
