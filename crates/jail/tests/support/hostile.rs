//! Hostile programs in fresh sandboxes: nothing of the host may be seen, changed or hurt, and the harness serves on.
//!
//! Only `sh` and `perl` are needed inside; `perl` makes the system calls that no tool would.

use super::{
    CANARY, Case, KEPT, World, children_named, command, descendants, finish, new_id, path, resident_bytes, sh, skip,
    traces, until,
};
use bytes::Bytes;
use sandbox::{Change, Chunk, Error, Exit, Limits, Provider as _, Sandbox, Start, Workspace};
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub(crate) fn cases() -> Vec<Case> {
    crate::cases![
        who_and_where_it_is,
        no_file_of_the_host,
        no_variable_of_the_host,
        no_network,
        calls_are_refused,
        foreign_call_numbers_are_refused,
        privileges_are_gone,
        the_process_list_is_its_own,
        only_harmless_devices,
        nothing_is_writable_but_its_own,
        first_process_is_out_of_reach,
        fork_bomb,
        memory_bomb,
        processor_hog,
        full_disk,
        full_memory_file_systems,
        inode_exhaustion,
        kill_everything,
        an_orphan_dies_with_it,
        stopped_processes_do_not_hang,
        output_that_is_no_text,
        races_against_files_lead_nowhere,
        names_that_are_attacks,
        a_flood_of_starts,
        a_killed_harness_leaves_nothing,
        nothing_is_left,
    ]
}

fn perl_is_there() -> bool {
    std::path::Path::new("/usr/bin/perl").exists()
}

async fn who_and_where_it_is(world: Arc<World>) {
    let sandbox = world.sandbox().await;
    assert_eq!(sh(&sandbox, "id").await.out, "uid=1000(agent) gid=1000(agent) groups=1000(agent)\n");
    assert_eq!(sh(&sandbox, "cut -d: -f1 /etc/passwd").await.out, "agent\nnobody\n");
    let root = sh(&sandbox, "ls -A /").await.out;
    let known = [
        "bin",
        "dev",
        "etc",
        "lib",
        "lib32",
        "lib64",
        "libx32",
        "proc",
        "run",
        "sbin",
        "tmp",
        "usr",
        "var",
        "workspace",
    ];
    assert!(root.lines().all(|name| known.contains(&name)), "{root}");
    let settings = sh(&sandbox, "ls -A /etc").await.out;
    let known = ["alternatives", "group", "hostname", "hosts", "ld.so.cache", "nsswitch.conf", "passwd"];
    assert!(settings.lines().all(|name| known.contains(&name)), "{settings}");
    assert_eq!(sh(&sandbox, "cat /proc/self/uid_map | tr -s ' ' | cut -d' ' -f2,4").await.out, "1000 1\n");
    sandbox.close().await;
}

async fn no_file_of_the_host(world: Arc<World>) {
    let canary = world.data.join("canary");
    std::fs::write(&canary, CANARY.1).unwrap();
    let sandbox = world.sandbox().await;
    let files = [
        "/etc/shadow",
        "/etc/ssh",
        "/root",
        "/home",
        "/var/lib",
        "/var/log",
        "/sys/kernel",
        "/boot",
        "/.dockerenv",
        "/opt",
    ];
    for file in files {
        assert_eq!(sh(&sandbox, &format!("ls {file}")).await.exit, Exit::Code(2), "{file}");
    }
    let seen = sh(&sandbox, &format!("cat {}", canary.display())).await;
    assert!(!seen.out.contains(CANARY.1));
    let scan = "grep -rsl canary-5b1c9f72e0 / --exclude-dir=usr --exclude-dir=proc";
    // The scanner finds what is there to find.
    sh(&sandbox, "echo canary-5b1c9f72e0 > /workspace/own").await;
    assert_eq!(sh(&sandbox, scan).await.out, "/workspace/own\n");
    assert_eq!(
        sh(&sandbox, "for p in ../../../..; do cd $p; done; ls -A /../../ | grep -c workspace").await.out,
        "1\n"
    );
    sandbox.close().await;
}

async fn no_variable_of_the_host(world: Arc<World>) {
    // The canary is in this process, where the launcher was forked from.
    let own = std::fs::read("/proc/self/environ").unwrap();
    assert!(String::from_utf8_lossy(&own).contains(CANARY.1), "the canary is planted");
    let launcher = children_named("topside-launch")[0];
    let sandbox = world.sandbox().await;
    if world.root {
        for process in children_named("topside-init").into_iter().chain([launcher]) {
            let environment = std::fs::read(format!("/proc/{process}/environ")).unwrap();
            assert!(!String::from_utf8_lossy(&environment).contains(CANARY.1), "process {process} carries it");
        }
    }
    let seen = sh(&sandbox, "env; cat /proc/1/environ /proc/self/environ; tr '\\0' ' ' < /proc/1/cmdline").await.out;
    assert!(!seen.contains(CANARY.0) && !seen.contains(CANARY.1), "{seen}");
    sandbox.close().await;
}

async fn no_network(world: Arc<World>) {
    let sandbox = world.sandbox().await;
    let devices = sh(&sandbox, "tail -n +3 /proc/net/dev | cut -d: -f1 | tr -d ' '").await.out;
    assert_eq!(devices, "lo\n");
    assert_eq!(sh(&sandbox, "cat /proc/net/route | wc -l").await.out, "1\n", "a heading, no route");
    if !perl_is_there() {
        return skip("no_network: connecting", "perl is not installed");
    }
    for address in ["1.1.1.1", "169.254.169.254", "10.0.0.1", "192.168.0.1", "8.8.8.8"] {
        let script = format!(
            "use Socket; socket(S, PF_INET, SOCK_STREAM, 0) or die; connect(S, sockaddr_in(80, inet_aton('{address}'))) or print $!;"
        );
        assert_eq!(perl(&sandbox, &script).await, "Network is unreachable", "{address}");
    }
    // The host's own loopback is another one: a listener outside is not reached.
    let outside = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = outside.local_addr().unwrap().port();
    let connect = format!(
        "use Socket; socket(S, PF_INET, SOCK_STREAM, 0); connect(S, sockaddr_in({port}, INADDR_LOOPBACK)) or print $!;"
    );
    assert_eq!(perl(&sandbox, &connect).await, "Connection refused");
    let own = "use Socket; socket(L, PF_INET, SOCK_STREAM, 0); bind(L, sockaddr_in(8080, INADDR_LOOPBACK)); listen(L, 1); \
        socket(S, PF_INET, SOCK_STREAM, 0); connect(S, sockaddr_in(8080, INADDR_LOOPBACK)) and print 'own loopback';";
    assert_eq!(perl(&sandbox, own).await, "own loopback");
    sandbox.close().await;
}

async fn perl(sandbox: &Arc<dyn Sandbox>, script: &str) -> String {
    let mut process = sandbox.start(command(&["/usr/bin/perl", "-e", script])).await.unwrap();
    let got = finish(process.as_mut()).await.unwrap();
    assert!(matches!(got.exit, Exit::Code(_)), "{script}: {:?}", got.exit);
    format!("{}{}", got.out, got.err)
}

/// Calls that no program inside may make, with arguments that would work.
const REFUSED: [(&str, &str); 40] = [
    ("mount", "165, 'none', '/tmp', 'tmpfs', 0, 0"),
    ("umount2", "166, '/tmp', 2"),
    ("pivot_root", "155, '/', '/tmp'"),
    ("chroot", "161, '/tmp'"),
    ("fsopen", "430, 'tmpfs', 0"),
    ("open_tree", "428, -100, '/', 1"),
    ("move_mount", "429, -100, '/', -100, '/tmp', 0"),
    ("mount_setattr", "442, -100, '/', 0, 0, 0"),
    ("unshare user", "272, 0x10000000"),
    ("unshare mount", "272, 0x20000"),
    ("unshare network", "272, 0x40000000"),
    ("clone user", "56, 0x10000011, 0, 0, 0, 0"),
    ("setns", "308, 0, 0"),
    ("ptrace", "101, 0, 0, 0, 0"),
    ("process_vm_readv", "310, 1, 0, 0, 0, 0, 0"),
    ("process_vm_writev", "311, 1, 0, 0, 0, 0, 0"),
    ("pidfd_getfd", "438, 0, 0, 0"),
    ("kcmp", "312, 1, 1, 0, 0, 0"),
    ("keyctl", "250, 0, -3, 0"),
    ("add_key", "248, 'user', 'x', 'y', 1, -3"),
    ("request_key", "249, 'user', 'x', 0, -3"),
    ("bpf", "321, 0, 0, 0"),
    ("perf_event_open", "298, 0, 0, -1, -1, 0"),
    ("io_uring_setup", "425, 1, 0"),
    ("io_uring_enter", "426, 0, 0, 0, 0, 0"),
    ("io_uring_register", "427, 0, 0, 0, 0"),
    ("userfaultfd", "323, 1"),
    ("memfd_secret", "447, 0"),
    ("open_by_handle_at", "304, -100, 0, 0"),
    ("name_to_handle_at", "303, -100, '/', 0, 0, 0"),
    ("init_module", "175, 0, 0, ''"),
    ("finit_module", "313, 0, '', 0"),
    ("kexec_load", "246, 0, 0, 0, 0"),
    ("swapon", "167, '/tmp', 0"),
    ("acct", "163, '/tmp'"),
    ("reboot", "169, 0xfee1dead, 0x28121969, 0x1234567, 0"),
    ("syslog", "103, 2, 0, 0"),
    ("mknod block", "133, '/tmp/b', 0x6180, 0x800"),
    ("mknod character", "133, '/tmp/c', 0x2180, 0x103"),
    ("personality", "135, 0x400000"),
];

/// A script that makes a system call and says `worked` or the error number. The child of a successful `clone` ends silently.
fn call(arguments: &str) -> String {
    let act = "$n = shift @a; $me = $$; $r = syscall($n, @a); exit if $n == 56 && $r == 0;";
    format!("$| = 1; @a = ({arguments}); {act} print $r == -1 ? $!+0 : 'worked';")
}

async fn calls_are_refused(world: Arc<World>) {
    if cfg!(not(target_arch = "x86_64")) || !perl_is_there() {
        return skip("calls_are_refused", "needs perl on x86_64");
    }
    let sandbox = world.sandbox().await;
    for (name, arguments) in REFUSED {
        let got = perl(&sandbox, &call(arguments)).await;
        assert_eq!(got, "1", "{name} gave {got}, not EPERM");
    }
    let rows = [
        ("clone3 is not there, so that libraries fall back", "435, 0, 0", "38"),
        ("the call itself works: getpid", "39", "worked"),
        ("a FIFO may be made", "133, '/tmp/f', 0x1180, 0", "worked"),
        ("an ordinary fork works: clone", "56, 17, 0, 0, 0, 0", "worked"),
        ("AF_VSOCK", "41, 40, 1, 0", "1"),
        ("AF_PACKET", "41, 17, 3, 0", "1"),
        ("AF_ALG", "41, 38, 5, 0", "1"),
        ("raw socket", "41, 2, 3, 1", "1"),
        ("netlink audit", "41, 16, 3, 9", "1"),
        ("netlink route", "41, 16, 3, 0", "worked"),
        ("limits of PID 1", "302, 1, 7, pack('QQ', 1, 1), 0", "1"),
    ];
    for (name, arguments, expected) in rows {
        let got = perl(&sandbox, &call(arguments)).await;
        assert!(got.starts_with(expected), "{name} gave {got}, not {expected}");
    }
    // Typing into the terminal that it shares with whoever reads it.
    let mut asked = command(&["/usr/bin/perl", "-e", "$c = 'x'; print ioctl(STDIN, 0x5412, $c) ? 'typed' : $!+0;"]);
    asked.terminal = true;
    let mut process = sandbox.start(asked).await.unwrap();
    assert_eq!(finish(process.as_mut()).await.unwrap().out, "1");
    sandbox.close().await;
}

async fn foreign_call_numbers_are_refused(world: Arc<World>) {
    if cfg!(not(target_arch = "x86_64")) || !perl_is_there() {
        return skip("foreign_call_numbers_are_refused", "needs perl on x86_64");
    }
    let sandbox = world.sandbox().await;
    // x32: getpid and mount with bit 30 set.
    for number in ["0x40000027", "0x400000a5"] {
        assert_eq!(perl(&sandbox, &format!("$r = syscall({number}); print $r == -1 ? $!+0 : 'worked'")).await, "38");
    }
    // i386: a hand-made program that calls getpid through int 0x80 and exits with 0 when that worked.
    sandbox
        .apply(vec![Change::Write { path: path("i386"), bytes: i386_program().into(), mode: Some(0o755) }])
        .await
        .unwrap();
    assert_eq!(sh(&sandbox, "exec ./i386").await.exit, Exit::Signal(31), "a call of another architecture kills");
    sandbox.close().await;
}

/// A 64-bit ELF file of one segment: `mov eax, 20; int 0x80; mov edi, 0; mov eax, 60; syscall`.
fn i386_program() -> Vec<u8> {
    let code: [u8; 19] = [0xb8, 20, 0, 0, 0, 0xcd, 0x80, 0xbf, 0, 0, 0, 0, 0xb8, 60, 0, 0, 0, 0x0f, 0x05];
    let mut file = Vec::new();
    file.extend_from_slice(b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0");
    for half in [2_u16, 62] {
        file.extend_from_slice(&half.to_le_bytes());
    }
    file.extend_from_slice(&1_u32.to_le_bytes());
    for word in [0x40_0078_u64, 64, 0] {
        file.extend_from_slice(&word.to_le_bytes());
    }
    file.extend_from_slice(&0_u32.to_le_bytes());
    for half in [64_u16, 56, 1, 0, 0, 0] {
        file.extend_from_slice(&half.to_le_bytes());
    }
    for word in [1_u32, 5] {
        file.extend_from_slice(&word.to_le_bytes());
    }
    let length = 0x78 + code.len() as u64;
    for word in [0, 0x40_0000, 0x40_0000, length, length, 0x1000] {
        file.extend_from_slice(&word.to_le_bytes());
    }
    file.extend_from_slice(&code);
    file
}

async fn privileges_are_gone(world: Arc<World>) {
    let sandbox = world.sandbox().await;
    let status = sh(&sandbox, "grep -E '^(Cap|NoNewPrivs|Seccomp:)' /proc/self/status | tr -s '\\t ' ' '").await.out;
    let none = "0000000000000000";
    let expected = format!(
        "CapInh: {none}\nCapPrm: {none}\nCapEff: {none}\nCapBnd: {none}\nCapAmb: {none}\nNoNewPrivs: 1\nSeccomp: 2\n"
    );
    assert_eq!(status, expected);
    // Programs that are set-uid outside are ordinary here.
    let got = sh(&sandbox, "su -c id; sudo -n id; mount -t tmpfs x /tmp; ping -c1 127.0.0.1; chown 0 /workspace").await;
    assert!(!got.out.contains("uid=0"), "{}", got.out);
    for (limit, value) in [("c", "0"), ("n", "1024")] {
        assert_eq!(sh(&sandbox, &format!("ulimit -H -{limit}")).await.out.trim(), value);
    }
    assert_eq!(sh(&sandbox, "ls /proc/self/fd | wc -l").await.out, "4\n", "0, 1, 2 and the listing's own");
    let walls = sandbox.walls();
    assert!(walls.missing.is_empty(), "{walls:?}");
    assert_eq!(walls.standing.len(), 16, "{walls:?}");
    sandbox.close().await;
}

async fn the_process_list_is_its_own(world: Arc<World>) {
    let sandbox = world.sandbox().await;
    let seen = sh(&sandbox, "ls /proc | grep -E '^[0-9]+$' | wc -l").await.out;
    assert!(seen.trim().parse::<u32>().unwrap() < 8, "{seen}");
    for file in ["kcore", "kmsg", "sysrq-trigger", "keys", "timer_list", "cmdline", "kallsyms", "modules", "partitions"]
    {
        let got = sh(&sandbox, &format!("head -c 16 /proc/{file}")).await;
        assert_eq!(got.out, "", "/proc/{file}");
    }
    let writes = [
        "sys/kernel/core_pattern",
        "sys/kernel/hostname",
        "sys/user/max_user_namespaces",
        "sysrq-trigger",
        "irq/default_smp_affinity",
    ];
    for file in writes {
        let got = sh(&sandbox, &format!("echo 1 > /proc/{file}")).await;
        assert!(got.exit != Exit::Code(0) || file == "sysrq-trigger", "/proc/{file} was written");
    }
    assert_eq!(sh(&sandbox, "cat /proc/sys/user/max_user_namespaces").await.out, "0\n");
    sandbox.close().await;
}

async fn only_harmless_devices(world: Arc<World>) {
    let sandbox = world.sandbox().await;
    let devices = sh(&sandbox, "for f in /dev/* /dev/pts/*; do [ -L $f ] || printf '%s ' $f; done").await.out;
    assert_eq!(
        devices,
        "/dev/full /dev/null /dev/pts /dev/random /dev/shm /dev/tty /dev/urandom /dev/zero /dev/pts/ptmx "
    );
    assert_ne!(sh(&sandbox, "touch /dev/new").await.exit, Exit::Code(0));
    assert_eq!(sh(&sandbox, "echo x > /dev/full").await.exit, Exit::Code(1));
    sandbox.close().await;
}

async fn nothing_is_writable_but_its_own(world: Arc<World>) {
    let sandbox = world.sandbox().await;
    let found = sh(&sandbox, "for d in / /usr /usr/bin /etc /proc /run /var /dev /lib /usr/local /run/empty; do touch $d/x 2>/dev/null && echo $d; done").await;
    assert_eq!(found.out, "");
    let own = "for d in /workspace /tmp /dev/shm /var/tmp; do touch $d/x && echo $d; done; cp /bin/true /tmp/t && /tmp/t && echo ran";
    assert_eq!(sh(&sandbox, own).await.out, "/workspace\n/tmp\n/dev/shm\n/var/tmp\nran\n");
    assert_eq!(
        sh(&sandbox, "mkdir /tmp/a /tmp/b; touch /tmp/a/f; mv /tmp/a/f /tmp/b/ && echo moved").await.out,
        "moved\n"
    );
    sandbox.close().await;
}

async fn first_process_is_out_of_reach(world: Arc<World>) {
    let sandbox = world.sandbox().await;
    for file in ["mem", "fd/", "root/", "cwd/", "environ", "maps", "exe", "ns/mnt"] {
        let got = sh(&sandbox, &format!("ls -L /proc/1/{file} && cat /proc/1/{file}")).await;
        assert_ne!(got.exit, Exit::Code(0), "/proc/1/{file}: {}", got.out);
    }
    for signal in ["KILL", "STOP", "TERM", "SEGV", "INT"] {
        sh(&sandbox, &format!("kill -{signal} 1")).await;
    }
    assert_eq!(sh(&sandbox, "echo serves").await.out, "serves\n");
    sandbox.close().await;
}

async fn fork_bomb(world: Arc<World>) {
    let neighbour = world.sandbox().await;
    let sandbox = world.sandbox().await;
    let mut bomb = sandbox.start(command(&["/bin/sh", "-c", "f() { f | f & }; f; sleep 1000"])).await.unwrap();
    let mut hit = false;
    while !hit {
        match bomb.next().await.unwrap() {
            Chunk::Output(_, bytes) => hit = String::from_utf8_lossy(&bytes).contains("fork"),
            Chunk::Exit(_) => break,
        }
    }
    assert!(hit, "the limit is felt inside");
    assert_eq!(sh(&neighbour, "echo fine").await.out, "fine\n");
    drop(bomb);
    sandbox.close().await;
    neighbour.close().await;
    until("all of the bomb is gone", || children_named("sh").is_empty()).await;
}

async fn memory_bomb(world: Arc<World>) {
    if !perl_is_there() {
        return skip("memory_bomb", "perl is not installed");
    }
    let mut spec = world.spec(Workspace::Scratch);
    spec.limits.memory_bytes_max = 64 << 20;
    let sandbox = world.provider.create(spec).await.unwrap();
    let before = resident_bytes();
    let mut bomb = sandbox.start(command(&["/usr/bin/perl", "-e", "push @a, 'x' x 1_000_000 while 1"])).await.unwrap();
    let got = finish(bomb.as_mut()).await.unwrap();
    assert_eq!(got.exit, Exit::Signal(9));
    assert!(got.err.contains("out of memory; memory_bytes_max = 67108864"), "{}", got.err);
    assert_eq!(sh(&sandbox, "echo lives").await.out, "lives\n", "only the bomb was killed");
    // A shell that reports its child's death is told on, too; an ordinary kill is not called one by memory.
    let got = sh(&sandbox, "perl -e 'push @a, \"x\" x 1_000_000 while 1'; exit $?").await;
    assert!(got.err.contains("out of memory"), "{}", got.err);
    assert!(!sh(&sandbox, "kill -9 $$").await.err.contains("memory"));
    assert!(resident_bytes().saturating_sub(before) < 16 << 20);
    sandbox.close().await;
}

async fn processor_hog(world: Arc<World>) {
    let mut spec = world.spec(Workspace::Scratch);
    spec.limits.cpu_milli_max = 200;
    let sandbox = world.provider.create(spec).await.unwrap();
    let hog = sandbox
        .start(command(&["/bin/sh", "-c", "for i in 1 2 3 4; do while :; do :; done & done; wait"]))
        .await
        .unwrap();
    until("the limit was felt", || {
        let launcher = children_named("topside-launch")[0];
        let groups = directories_named(Path::new("/sys/fs/cgroup"), &format!("topside-{launcher}"), 6);
        let throttled = |text: String| {
            text.lines().any(|line| line.strip_prefix("nr_throttled ").is_some_and(|count| count != "0"))
        };
        let stats = groups.iter().flat_map(|group| std::fs::read_dir(group).into_iter().flatten().flatten());
        stats.filter_map(|group| std::fs::read_to_string(group.path().join("cpu.stat")).ok()).any(throttled)
    })
    .await;
    drop(hog);
    sandbox.close().await;
}

/// The directories of this name, at most so deep: where groups lie differs between versions of cgroups.
fn directories_named(below: &Path, name: &str, depth: usize) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(below).into_iter().flatten().flatten();
    let directories = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    let found = |path: PathBuf| match path.file_name().is_some_and(|found| found == name) {
        true => vec![path],
        false if depth > 0 => directories_named(&path, name, depth - 1),
        false => Vec::new(),
    };
    directories.flat_map(|entry| found(entry.path())).collect()
}

/// Bytes that everything below a directory takes on the disk.
fn disk_bytes(directory: &std::path::Path) -> u64 {
    use std::os::unix::fs::MetadataExt as _;
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    entries
        .map(|entry| match entry.metadata() {
            Ok(metadata) if metadata.is_dir() => disk_bytes(&entry.path()),
            Ok(metadata) => metadata.blocks() * 512,
            Err(_) => 0,
        })
        .sum()
}

async fn full_disk(world: Arc<World>) {
    let session = new_id::<domain::id::Session>();
    let sandbox = world.provider.create(world.spec(world.session(Start::Fresh, session))).await.unwrap();
    let got = sh(&sandbox, "dd if=/dev/zero of=fill bs=1M; echo full; stat -c %s fill").await;
    assert!(got.err.contains("No space left on device"), "{}", got.err);
    let bytes: u64 = got.out.lines().nth(1).unwrap().parse().unwrap();
    assert!((40 << 20..=64 << 20).contains(&bytes), "{bytes} bytes fit");
    let full =
        sandbox.apply(vec![Change::Write { path: path("more"), bytes: Bytes::from(vec![1; 1 << 20]), mode: None }]);
    assert!(full.await.unwrap_err().to_string().contains("full"));
    sandbox.close().await;
    let kept = disk_bytes(&world.data.join("workspaces/default").join(session.to_string()));
    assert!((40 << 20..=66 << 20).contains(&kept), "{kept} bytes of the host's disk");
    let sandbox = world.provider.create(world.spec(world.session(KEPT, session))).await.unwrap();
    assert_eq!(sh(&sandbox, "rm fill; until echo room > again; do :; done; cat again").await.out, "room\n");
    sandbox.close().await;
}

async fn full_memory_file_systems(world: Arc<World>) {
    let sandbox = world.sandbox().await;
    for directory in ["/tmp", "/dev/shm"] {
        let got = sh(&sandbox, &format!("dd if=/dev/zero of={directory}/fill bs=1M; rm {directory}/fill")).await;
        assert!(got.err.contains("No space left on device"), "{directory}: {}", got.err);
    }
    assert_eq!(sh(&sandbox, "echo fine").await.out, "fine\n");
    sandbox.close().await;
}

async fn inode_exhaustion(world: Arc<World>) {
    let sandbox = world.sandbox().await;
    let got = sh(&sandbox, "i=0; while : > f$i; do i=$((i+1)); done 2>/dev/null; echo $i").await;
    // The shell ends where the redirection of `:` fails, so the count is asked for apart.
    let count = sh(&sandbox, "ls | wc -l").await.out;
    let count: u64 = count.trim().parse().unwrap();
    assert!((1_900..=2_600).contains(&count), "{count} files, {got:?}");
    assert!(sandbox.apply(vec![Change::Write { path: path("more"), bytes: Bytes::new(), mode: None }]).await.is_err());
    sandbox.close().await;
}

async fn kill_everything(world: Arc<World>) {
    let neighbour = world.sandbox().await;
    let sandbox = world.sandbox().await;
    let mut victim = sandbox.start(command(&["sleep", "1000"])).await.unwrap();
    sh(&sandbox, "kill -9 -1").await;
    assert_eq!(finish(victim.as_mut()).await.unwrap().exit, Exit::Signal(9));
    for alive in [&sandbox, &neighbour] {
        assert_eq!(sh(alive, "echo lives").await.out, "lives\n");
    }
    assert_eq!(children_named("topside-launch").len(), 1);
    sandbox.close().await;
    neighbour.close().await;
}

async fn an_orphan_dies_with_it(world: Arc<World>) {
    if !perl_is_there() {
        return skip("an_orphan_dies_with_it", "perl is not installed");
    }
    let sandbox = world.sandbox().await;
    let script = "use POSIX; if (!fork) { setsid; if (!fork) { $0 = 'topside-orphan'; exec 'sleep', '4242' } exit } print 'away'";
    assert_eq!(perl(&sandbox, script).await, "away");
    assert_eq!(sh(&sandbox, "pgrep -x sleep | wc -l").await.out, "1\n");
    assert!(!children_named("sleep").is_empty());
    sandbox.close().await;
    until("the orphan is gone", || children_named("sleep").is_empty()).await;
}

async fn stopped_processes_do_not_hang(world: Arc<World>) {
    let sandbox = world.sandbox().await;
    let mut stopped = sandbox.start(command(&["/bin/sh", "-c", "echo up; kill -STOP $$; echo never"])).await.unwrap();
    assert!(matches!(stopped.next().await.unwrap(), Chunk::Output(..)));
    assert_eq!(stopped.kill().await.unwrap(), Exit::Signal(9));
    sandbox.start(command(&["/bin/sh", "-c", "kill -STOP $$"])).await.unwrap();
    sandbox.close().await;
}

async fn output_that_is_no_text(world: Arc<World>) {
    let sandbox = world.sandbox().await;
    let mut process = sandbox
        .start(command(&["/bin/sh", "-c", "head -c 100000 /dev/urandom; printf '\\000\\377\\033]52;c;x\\007'"]))
        .await
        .unwrap();
    let mut bytes = Vec::new();
    while let Chunk::Output(_, chunk) = process.next().await.unwrap() {
        bytes.extend_from_slice(&chunk);
    }
    assert_eq!((bytes.len(), bytes[100_000], bytes[100_001]), (100_011, 0, 255));
    sandbox.close().await;
}

async fn races_against_files_lead_nowhere(world: Arc<World>) {
    let sandbox = world.sandbox().await;
    let flip = "mkdir d s; echo inside > s/passwd; while :; do rm -rf d; ln -s /etc d; rm d; cp -r s d; done";
    let racer = sandbox.start(command(&["/bin/sh", "-c", flip])).await.unwrap();
    for _ in 0..300 {
        if let Ok(bytes) = sandbox.read(&path("d/passwd"), 0, 4_096).await {
            assert!(bytes.is_empty() || &bytes[..] == b"inside\n", "{bytes:?}");
        }
        let change = Change::Write { path: path("d/new"), bytes: Bytes::from_static(b"x"), mode: None };
        let _ = sandbox.apply(vec![change]).await;
    }
    drop(racer);
    assert_eq!(sh(&sandbox, "ls /etc/new /etc/.topside* 2>/dev/null").await.out, "");
    sandbox.close().await;
}

async fn names_that_are_attacks(world: Arc<World>) {
    let sandbox = world.sandbox().await;
    let script = "touch -- 'a
b' \"$(printf 'esc\\033[2J')\" \"$(printf 'bad\\377')\" ' ' '-rf' '.topside-mirror' \"$(printf '%0255d' 0)\"; \
        mkdir -p $(printf 'd/%.0s' $(seq 1 300)); echo done";
    assert_eq!(sh(&sandbox, script).await.out, "done\n");
    let listed = sandbox.list(&path("."), 100).await.unwrap();
    assert_eq!(listed.len(), 8, "{listed:?}");
    let changed = sandbox.changed(1_000).await.unwrap();
    assert!((200..=320).contains(&changed.len()), "{}", changed.len());
    sandbox.close().await;
}

async fn a_flood_of_starts(world: Arc<World>) {
    let sandbox = world.sandbox().await;
    let tasks: Vec<_> = (0..200)
        .map(|_| {
            let sandbox = Arc::clone(&sandbox);
            tokio::spawn(async move { sandbox.start(command(&["sleep", "1000"])).await })
        })
        .collect();
    let mut held = Vec::new();
    for task in tasks {
        match task.await.unwrap() {
            Ok(process) => held.push(process),
            Err(error) => assert_eq!(error.code(), "sandbox_command", "{error}"),
        }
    }
    assert!(held.len() <= Limits::default().commands_max);
    drop(held);
    sandbox.close().await;
}

async fn a_killed_harness_leaves_nothing(world: Arc<World>) {
    use std::io::{BufRead as _, BufReader};
    let session: domain::Id<domain::id::Session> = new_id();
    let data = format!("{}={}", super::VICTIM, world.data.display());
    let mut harness = std::process::Command::new(std::env::current_exe().unwrap())
        .args([data, session.to_string()])
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(harness.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "ready\n");
    let family = descendants(harness.id());
    assert!(family.iter().any(|(_, name)| name == "sleep"), "{family:?}");
    harness.kill().unwrap();
    harness.wait().unwrap();
    // Waits until the old sandbox is gone, as a harness that starts again does.
    let sandbox = world.provider.create(world.spec(world.session(KEPT, session))).await.unwrap();
    assert_eq!(sh(&sandbox, "cat made; pgrep -c sleep").await.out, "before\n0\n");
    sandbox.close().await;
    until("its launcher and all below are gone", || {
        family.iter().all(|(pid, _)| !std::path::Path::new(&format!("/proc/{pid}")).exists())
    })
    .await;
}

async fn nothing_is_left(world: Arc<World>) {
    // Sandboxes of earlier cases that were only dropped may still be on their way out.
    until("earlier sandboxes are gone", || traces(&world.data).processes == 0 && traces(&world.data).loops == 0).await;
    let before = traces(&world.data);
    for round in 0..50 {
        let workspace = if round % 3 == 0 { Workspace::Scratch } else { world.session(Start::Fresh, new_id()) };
        let sandbox = world.provider.create(world.spec(workspace.clone())).await.unwrap();
        sh(&sandbox, "setsid sleep 1000 & mkdir d; echo x > d/f").await;
        let held = sandbox.start(command(&["sleep", "1000"])).await;
        if round % 2 == 0 {
            sandbox.close().await;
        }
        drop(held);
        drop(sandbox);
        world.provider.workspace_remove(&workspace).await.unwrap();
    }
    until("everything is as before", || traces(&world.data) == before).await;
    assert!(matches!(
        world.provider.create(world.spec(world.session(KEPT, new_id()))).await,
        Err(Error::WorkspaceLost)
    ));
}
