//! Hostile programs in fresh sandboxes: nothing of the host may be seen, changed or hurt, and the harness serves on. Each
//! behaviour has a file of its own. What makes system calls that no tool would is this very program, shown inside.
//!
//! | behaviour | file |
//! |---|---|
//! | 1 fork bomb | `fork_bomb` |
//! | 2 memory bomb | `memory_bomb` |
//! | 3 processor hog | `processor` |
//! | 4, 5 full disk, many files | `disk` |
//! | 6 output without end or sense | `output`, and `much_output_needs_little_memory` of the conformance suite |
//! | 7, 11 deaf and stopped processes, killing everything | `hung` |
//! | 8, 9 orphans, time bombs | `orphans` |
//! | 10 attacking the first process | `first_process` |
//! | 12 mounts | `mounts` |
//! | 13, 14 namespaces of one's own and of others | `namespaces` |
//! | 15 set-uid programs | `setuid` |
//! | 16 devices | `devices` |
//! | 17 to 19 the kernel's files, groups | `system_files` |
//! | 20, 21 the kernel's large doors | `surface`; every system call: `syscalls` |
//! | 22 other architectures' calls | `syscalls` |
//! | 23 other people's terminals | `terminal` |
//! | 24, 25 sockets | `sockets` |
//! | 34 links and races | `links`, `races` |
//! | 35, 36 hostile archives | `checkpoints` of the conformance suite |
//! | 37 names | `names` |
//! | 38 what sandboxes share | `apart` |
//! | 40 residue | `residue`, `cycles` |
//!
//! Beyond the forty: `disk_hog`, reading and writing without end; `syncs`, whole file systems written out. What holds each
//! case stands in `table`.

mod apart;
pub(crate) mod attempts;
mod cycles;
mod devices;
mod disk;
mod disk_hog;
mod first_process;
mod fork_bomb;
mod hung;
mod links;
mod memory_bomb;
mod mounts;
mod names;
mod namespaces;
mod orphans;
mod output;
mod processor;
mod races;
pub(crate) mod raw;
mod residue;
mod setuid;
mod sight;
mod sockets;
mod surface;
mod syncs;
mod syscalls;
mod system_files;
pub(crate) mod table;
mod terminal;

use self::attempts::{Attempt, Control};
use super::Case;

/// A program for a case: takes arguments, does its worst, and says something.
pub(crate) type Act = (&'static str, fn(&[String]) -> String);

/// Every attempt.
pub(crate) fn attempts() -> Vec<Attempt> {
    let all: [&[Attempt]; 16] = [
        devices::ATTEMPTS,
        first_process::ATTEMPTS,
        mounts::ATTEMPTS,
        namespaces::ATTEMPTS,
        namespaces::OTHERS,
        setuid::ATTEMPTS,
        sockets::ADDRESSES,
        sockets::ATTEMPTS,
        sockets::NETWORK,
        sockets::OUTSIDE,
        surface::ATTEMPTS,
        surface::OF_THIS_ARCHITECTURE,
        syncs::ATTEMPTS,
        syscalls::ATTEMPTS,
        [system_files::ATTEMPTS, system_files::OUTSIDERS, system_files::SHOWN].concat().leak(),
        terminal::ATTEMPTS,
    ];
    all.concat()
}

/// Every other attacking program.
fn acts() -> Vec<Act> {
    let all: [&[Act]; 11] = [
        apart::ACTS,
        cycles::ACTS,
        disk::ACTS,
        fork_bomb::ACTS,
        hung::ACTS,
        memory_bomb::ACTS,
        orphans::ACTS,
        races::ACTS,
        syncs::ACTS,
        syscalls::ACTS,
        terminal::ACTS,
    ];
    all.concat()
}

/// A directory for a harness's data, of bounded size where this is root: a wall that fails fills it and nothing else.
pub(crate) fn data() -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    if rustix::process::geteuid().is_root() {
        let path = std::ffi::CString::new(directory.path().to_str().unwrap()).unwrap();
        raw::bound_directory(&path, c"size=2g,nr_inodes=400k,mode=755");
    }
    directory
}

/// A process outside that attacks which would reach it are shown to reach.
struct Other(std::process::Child);

impl Other {
    fn start() -> Self {
        Self(std::process::Command::new("sleep").arg("1000").spawn().unwrap())
    }

    fn id(&self) -> String {
        self.0.id().to_string()
    }

    fn end(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

pub(crate) fn cases() -> Vec<Case> {
    use {
        apart::*, cycles::*, devices::*, disk::*, disk_hog::*, first_process::*, fork_bomb::*, hung::*, links::*,
        memory_bomb::*, mounts::*,
    };
    use {
        names::*, namespaces::*, orphans::*, output::*, processor::*, races::*, residue::*, setuid::*, sight::*,
        sockets::*,
    };
    use {surface::*, syncs::*, syscalls::*, system_files::*, table::*, terminal::*};
    crate::cases![
        who_and_where_it_is,
        no_file_of_the_host,
        no_variable_of_the_host,
        nothing_is_writable_but_its_own,
        processes_are_limited,
        a_fork_bomb_hurts_nobody_else,
        memory_is_limited_whichever_way_it_is_taken,
        a_command_goes_before_the_first_process,
        a_kill_by_memory_is_told,
        a_processor_hog_is_slowed,
        a_disk_hog_is_slowed,
        what_is_written_out_for_it,
        a_slowed_sandbox_ends_at_once,
        what_can_not_be_limited_is_told,
        a_full_disk_is_ones_own,
        promises_count,
        full_memory_file_systems,
        files_are_counted,
        output_that_is_no_text,
        who_hears_nothing_is_killed,
        stopped_processes_do_not_hang,
        what_is_stopped_before_it_runs_holds_up_nobody,
        an_orphan_dies_with_it,
        the_first_process_is_out_of_reach,
        kill_everything,
        nothing_can_be_mounted,
        no_namespace_is_made_or_joined,
        nobody_becomes_somebody_else,
        a_program_of_roots_is_an_ordinary_one,
        only_harmless_devices,
        the_kernels_files_tell_and_take_nothing,
        no_program_of_the_host_is_changed,
        the_kernels_large_doors_are_shut,
        every_syscall_gives_what_the_golden_file_says,
        the_door_of_32_bit_programs_is_shut,
        nobody_types_for_somebody_else,
        no_socket_leads_outside,
        links_lead_nowhere,
        a_pipe_blocks_nobody,
        races_against_every_operation_lead_nowhere,
        names_that_are_attacks,
        two_sandboxes_share_nothing,
        a_flood_of_starts,
        a_killed_harness_leaves_nothing,
        nothing_is_left,
        hostile_cycles_leave_nothing,
        nobody_writes_out_the_hosts_disks,
        every_case_has_its_row,
        each_limit_is_what_holds,
    ]
}
