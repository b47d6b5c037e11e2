//! What roots promise: the right files, nobody's privileges, nothing written, and every hostile image refused by name.

use crate::cases;
use crate::make::{self, Entry};
use crate::support::{Case, World, sh, skip};
use domain::Root;
use domain::root::Template;
use sandbox::{Error, Provider as _, Sandbox, Start, Workspace};
use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub(crate) fn cases() -> Vec<Case> {
    cases![
        the_host_shows_what_is_listed,
        private_directories_of_the_host_are_refused,
        a_directory_is_a_root,
        an_image_is_a_root,
        an_image_says_who_runs_and_with_what,
        an_image_has_users_or_they_are_refused,
        an_image_s_files_keep_their_owners,
        layers_cover_and_take_away,
        what_is_written_is_bounded_and_gone,
        layers_are_shared_and_nobodys,
        hostile_images_are_refused_by_name,
        a_worker_that_is_killed_leaves_nothing,
        a_layer_in_use_stays,
        a_template_is_made_once,
        a_template_that_fails_says_where,
        a_whole_debian_in_each_form,
        a_package_is_installed_by_a_step,
    ]
}

async fn on(world: &World, root: Root) -> Result<Arc<dyn Sandbox>, Error> {
    let mut spec = world.spec(Workspace::Scratch);
    // The program that the tests bring with them is for other roots.
    spec.binds.clear();
    spec.root = root;
    world.provider.create(spec).await
}

fn image(path: &Path) -> Root {
    Root::Image { path: path.to_owned() }
}

fn write(world: &World, name: &str, bytes: &[u8]) -> PathBuf {
    let path = world.data.join(name);
    fs::write(&path, bytes).unwrap();
    path
}

/// The layers of a small image: one with all programs, one that changes it.
fn small() -> Option<Vec<Vec<u8>>> {
    let busybox = make::busybox()?;
    let base = make::tar(&[
        ("bin/", Entry::Directory),
        ("bin/busybox", Entry::File(&busybox, 0o4_755)),
        ("bin/sh", Entry::Hard("bin/busybox")),
        ("bin/cat", Entry::Link("busybox")),
        ("bin/ls", Entry::Link("busybox")),
        ("bin/id", Entry::Link("busybox")),
        ("bin/stat", Entry::Link("busybox")),
        ("bin/dd", Entry::Link("busybox")),
        ("bin/rm", Entry::Link("busybox")),
        ("bin/sleep", Entry::Link("busybox")),
        ("etc/", Entry::Directory),
        ("etc/passwd", Entry::File(b"root:x:0:0::/root:/bin/sh\nnode:x:1234:1235::/home/node:/bin/sh\n", 0o644)),
        ("etc/group", Entry::File(b"root:x:0:\nnode:x:1235:\n", 0o644)),
        ("etc/shadow", Entry::File(b"root:*:0:0:::::\n", 0o600)),
        ("etc/base", Entry::File(b"base\n", 0o644)),
        ("srv/", Entry::Directory),
        ("srv/gone", Entry::File(b"gone\n", 0o644)),
        ("srv/old/", Entry::Directory),
        ("srv/old/one", Entry::File(b"one\n", 0o644)),
        ("var/", Entry::Directory),
        ("var/lib/", Entry::Directory),
        ("var/lib/state", Entry::File(b"state\n", 0o644)),
        // Where mounts go, a layer may lead nowhere else.
        ("workspace", Entry::Link("/etc")),
        ("proc", Entry::Link("/etc")),
        ("home", Entry::Link("/workspace")),
    ]);
    let change = make::tar(&[
        ("etc/base", Entry::File(b"changed\n", 0o644)),
        ("srv/.wh.gone", Entry::File(b"", 0o644)),
        ("srv/old/", Entry::Directory),
        ("srv/old/.wh..wh..opq", Entry::File(b"", 0o644)),
        ("srv/old/two", Entry::File(b"two\n", 0o644)),
    ]);
    Some(vec![base, change])
}

const SETTINGS: &str = r#"{"Env":["PATH=/bin","COLOUR=blue"],"User":"node:root","WorkingDir":"/srv"}"#;

macro_rules! small_or_skip {
    ($name:literal) => {
        match small() {
            Some(layers) => layers,
            None => return skip($name, "no busybox without libraries"),
        }
    };
}

async fn the_host_shows_what_is_listed(world: Arc<World>) {
    let all = on(&world, Root::default()).await.unwrap();
    assert_eq!(sh(&all, "ls / /etc").await.out.split_whitespace().filter(|name| *name == "shadow").count(), 0);
    let directories: Vec<PathBuf> = ["/usr/bin", "/usr/lib", "/usr/lib64", "/bin", "/lib", "/lib64"]
        .iter()
        .map(PathBuf::from)
        .filter(|path| path.exists())
        .collect();
    let some = on(&world, Root::Host { directories }).await.unwrap();
    let seen = sh(&some, "ls /usr; ls -d /sbin /root /home /opt /srv 2>&1 | wc -l").await;
    assert!(seen.out.starts_with("bin\nlib\n") && seen.out.ends_with("\n5\n"), "{seen:?}");
    assert!(!seen.out.contains("share"), "{seen:?}");
    assert_eq!(sh(&some, "ls -d /sbin").await.exit, sandbox::Exit::Code(2));
}

async fn private_directories_of_the_host_are_refused(world: Arc<World>) {
    for path in ["/", "/etc", "/etc/ssh", "/home", "/root", "/var/lib", "/proc", "usr", "/usr/../etc"] {
        let refused = on(&world, Root::Host { directories: vec![path.into()] }).await.err().unwrap();
        assert_eq!(refused.code(), "sandbox_start", "{path}");
        assert!(refused.to_string().contains("root"), "{path}: {refused}");
    }
}

async fn a_directory_is_a_root(world: Arc<World>) {
    let Some(busybox) = make::busybox() else { return skip("a_directory_is_a_root", "no busybox without libraries") };
    let place = world.data.join("system");
    fs::create_dir_all(place.join("bin")).unwrap();
    fs::write(place.join("bin/busybox"), busybox).unwrap();
    fs::set_permissions(place.join("bin/busybox"), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    for name in ["sh", "ls", "cat"] {
        std::os::unix::fs::symlink("busybox", place.join("bin").join(name)).unwrap();
    }
    fs::write(place.join("marker"), "here").unwrap();
    let sandbox = on(&world, Root::Directory { path: place.clone() }).await.unwrap();
    let seen = sh(&sandbox, "cat /marker; echo x > /new; echo x > /marker; echo y > /workspace/y && echo ok").await;
    assert_eq!(seen.out, "hereok\n", "{seen:?}");
    assert!(!place.join("new").exists());
    assert_eq!(fs::read_to_string(place.join("marker")).unwrap(), "here");
    let missing = on(&world, Root::Directory { path: world.data.join("nothing") }).await.err().unwrap();
    assert!(missing.to_string().contains("nothing"), "{missing}");
}

async fn an_image_is_a_root(world: Arc<World>) {
    let layers = small_or_skip!("an_image_is_a_root");
    let saved = write(&world, "saved.tar", &make::saved(&layers, "{}"));
    let plain = world.data.join("layout");
    make::layout(&plain, &layers, "{}", make::gzip);
    for path in [saved, plain] {
        let sandbox = on(&world, image(&path)).await.unwrap();
        let seen = sh(&sandbox, "/bin/cat /etc/base; /bin/id -un; echo $HOME; echo a > a; /bin/cat /workspace/a").await;
        assert_eq!(seen.out, "changed\nagent\n/workspace\na\n", "{}: {seen:?}", path.display());
        // No program has more than another, whatever the image said of it.
        let mode = sh(&sandbox, "/bin/stat -c %a:%u /bin/busybox /etc/shadow").await;
        assert_eq!(mode.out, "755:1000\n600:1000\n", "{mode:?}");
        sandbox.close().await;
    }
}

async fn an_image_says_who_runs_and_with_what(world: Arc<World>) {
    let layers = small_or_skip!("an_image_says_who_runs_and_with_what");
    let path = write(&world, "settings.tar", &make::saved(&layers, SETTINGS));
    // Also a workspace that is kept is that user's, and stays readable for the next one, whoever that is.
    let session = crate::support::new_id();
    let kept = |root, start| {
        let mut spec = world.spec(world.session(start, session));
        spec.binds.clear();
        spec.root = root;
        spec
    };
    let sandbox = world.provider.create(kept(image(&path), Start::Fresh)).await.unwrap();
    let seen = sh(
        &sandbox,
        "id -u; id -g; id -un; echo $COLOUR $PATH $USER; stat -c %u /workspace /etc/base; echo x > x; stat -c %u x",
    )
    .await;
    assert_eq!(seen.out, "1234\n0\nnode\nblue /bin node\n1234\n1234\n1234\n", "{seen:?}");
    sandbox.close().await;
    drop(sandbox);
    let sandbox = world.provider.create(kept(Root::default(), crate::support::KEPT)).await.unwrap();
    assert_eq!(sh(&sandbox, "cat x; stat -c %u x; echo y >> x; cat x").await.out, "x\n1000\nx\ny\n");
    sandbox.close().await;
    let root = write(&world, "root.tar", &make::saved(&layers, r#"{"User":"0","Env":["PATH=/bin"]}"#));
    let sandbox = on(&world, image(&root)).await.unwrap();
    // Called root inside, and nobody all the same.
    let seen =
        sh(&sandbox, "id -u; cat /proc/self/status | busybox grep CapEff; echo 1 > /proc/sys/kernel/core_pattern")
            .await;
    assert!(seen.out.starts_with("0\n") && seen.out.contains("0000000000000000"), "{seen:?}");
    assert_ne!(seen.exit, sandbox::Exit::Code(0));
    sandbox.close().await;
    let nobody = write(&world, "nobody.tar", &make::saved(&layers, r#"{"User":"mallory"}"#));
    let refused = on(&world, image(&nobody)).await.err().unwrap().to_string();
    assert!(refused.contains("image_form") && refused.contains("mallory"), "{refused}");
}

async fn an_image_has_users_or_they_are_refused(world: Arc<World>) {
    let layers = small_or_skip!("an_image_has_users_or_they_are_refused");
    let path = write(&world, "users.tar", &make::saved(&layers, r#"{"Env":["PATH=/bin"]}"#));
    let named = |name: &str| sandbox::manifest::User { name: name.to_owned() };
    let group = sandbox::manifest::Group { name: "staff".to_owned(), users: vec!["alice".to_owned()] };
    let users = vec![named("alice"), named("node")];
    let mut spec = world.spec(Workspace::Scratch);
    spec.binds.clear();
    spec.root = image(&path);
    spec.accounts = sandbox::Accounts { users, groups: vec![group], user: Some("alice".to_owned()) };
    let made = world.provider.create(spec).await;
    if !world.root {
        return assert_eq!(made.err().unwrap().code(), "sandbox_wall", "one id is no two users");
    }
    let sandbox = made.unwrap();
    let rows = [
        ("alice", "alice\n/home/alice 2000\n0\n0\nno\nno\n"),
        // Whom the image knows keeps its number.
        ("node", "node\n/home/node 1234\n0\n0\nno\nno\n"),
        ("root", "root\n/root 0\n0\n0\nroot:*:0:0:::::\nyes\n"),
    ];
    let script = "id -un; echo $HOME $(stat -c %u $HOME); stat -c %u /bin/busybox /etc/shadow; \
                  cat /etc/shadow 2>/dev/null || echo no; (echo x > /var/x) 2>/dev/null && echo yes || echo no";
    for (user, expected) in rows {
        let argv = ["/bin/sh", "-c", script];
        let asked = sandbox::Command { user: Some(user.to_owned()), ..crate::support::command(&argv) };
        let mut process = sandbox.start(asked).await.unwrap();
        let seen = crate::support::finish(process.as_mut()).await.unwrap();
        assert_eq!(seen.out, expected, "{user}: {}", seen.err);
    }
    sandbox.close().await;
}

/// Owners on disk of what is below a directory.
fn owners_of(directory: &Path) -> BTreeSet<u32> {
    let mut found = BTreeSet::from([fs::symlink_metadata(directory).unwrap().uid()]);
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let metadata = entry.path().symlink_metadata().unwrap();
        found.insert(metadata.uid());
        if metadata.is_dir() {
            found.extend(owners_of(&entry.path()));
        }
    }
    found
}

async fn an_image_s_files_keep_their_owners(world: Arc<World>) {
    let mut layers = small_or_skip!("an_image_s_files_keep_their_owners");
    let web = make::tar(&[
        ("srv/web/", Entry::Directory),
        ("srv/web/page", Entry::File(b"page\n", 0o640)),
        ("srv/web/link", Entry::Link("page")),
        ("srv/web/tool", Entry::File(b"", 0o6755)),
        ("srv/high", Entry::File(b"", 0o644)),
        ("var/lib/node/", Entry::Directory),
        ("var/lib/node/kept", Entry::File(b"kept\n", 0o600)),
    ]);
    let of = [
        ("srv/web/", (33, 33)),
        ("srv/web/page", (33, 1_235)),
        ("srv/web/link", (33, 33)),
        ("srv/web/tool", (0, 33)),
        ("srv/high", (70_000, 65_535)),
        ("var/lib/node/", (1_234, 1_235)),
        ("var/lib/node/kept", (1_234, 1_235)),
    ];
    layers.push(make::owned(web, &of));
    let path = write(&world, "owners.tar", &make::saved(&layers, r#"{"Env":["PATH=/bin"]}"#));
    let look = "cd /srv; stat -c '%n %u:%g %a' web web/page web/link web/tool high /var/lib/node /var/lib/node/kept /etc/passwd";
    // Without users there is one owner.
    let one = on(&world, image(&path)).await.unwrap();
    let seen = sh(&one, &format!("{look}; cat web/page /var/lib/node/kept")).await.out;
    assert!(seen.lines().take(8).all(|line| line.contains(" 1000:1000 ")) && seen.ends_with("page\nkept\n"), "{seen}");
    one.close().await;
    if !world.root {
        return;
    }
    let with_users = || {
        let mut spec = world.spec(Workspace::Scratch);
        spec.binds.clear();
        spec.root = image(&path);
        spec.accounts.users = vec![sandbox::manifest::User { name: "node".to_owned() }];
        spec.accounts.user = Some("node".to_owned());
        spec
    };
    // Two at once, each with ids of its own, of the same files.
    let first = world.provider.create(with_users()).await.unwrap();
    let second = world.provider.create(with_users()).await.unwrap();
    let expected = "web 33:33 755\nweb/page 33:1235 640\nweb/link 33:33 777\nweb/tool 0:33 755\nhigh 65534:65535 644\n\
        /var/lib/node 1234:1235 755\n/var/lib/node/kept 1234:1235 600\n/etc/passwd 0:0 644\n";
    let as_root = |script: String| {
        let argv = ["/bin/sh", "-c", script.as_str()];
        sandbox::Command { user: Some("root".to_owned()), ..crate::support::command(&argv) }
    };
    for sandbox in [&first, &second] {
        assert_eq!(sh(sandbox, look).await.out, expected);
        // Who they belong to has them, and who is in their group; nobody else.
        let own = "echo more >> /var/lib/node/kept; cat /srv/web/page /var/lib/node/kept /etc/shadow 2>/dev/null; echo x > /srv/web/page || echo no";
        assert_eq!(sh(sandbox, own).await.out, "page\nkept\nmore\nno\n");
        // As a package manager and `su` do it, where the root can be written to.
        let script = "cd /var/lib; echo x > installed; busybox chown 33:1235 installed node; stat -c %u:%g installed node; busybox su node -c 'id -u; cat /etc/shadow || echo no'; cat /etc/shadow";
        let mut process = sandbox.start(as_root(script.to_owned())).await.unwrap();
        let seen = crate::support::finish(process.as_mut()).await.unwrap();
        assert_eq!(seen.out, "33:1235\n33:1235\n1234\nno\nroot:*:0:0:::::\n", "{}", seen.err);
    }
    // Nothing of that is in what is kept and shared: on disk every owner is nobody on the host.
    let owned = |layer: &PathBuf| layer.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"owned-"));
    let kept: Vec<PathBuf> = layers_kept(&world).into_iter().filter(owned).collect();
    assert_eq!(kept.len(), layers.len(), "{kept:?}");
    let owners: BTreeSet<u32> = kept.iter().flat_map(|layer| owners_of(&layer.join("tree"))).collect();
    assert_eq!(owners, BTreeSet::from([0, 33, 1_234, 65_534].map(|id| 0x0ffe_ffff + id)));
    first.close().await;
    second.close().await;
}

async fn layers_cover_and_take_away(world: Arc<World>) {
    let layers = small_or_skip!("layers_cover_and_take_away");
    let path = write(&world, "covered.tar", &make::saved(&layers, "{}"));
    let sandbox = on(&world, image(&path)).await.unwrap();
    let seen = sh(&sandbox, "cd /srv; /bin/ls -a . old; /bin/ls /workspace /proc/self/status /home").await;
    assert_eq!(
        seen.out, ".:\n.\n..\nold\n\nold:\n.\n..\ntwo\n/proc/self/status\n\n/home:\n\n/workspace:\n",
        "{seen:?}"
    );
}

async fn what_is_written_is_bounded_and_gone(world: Arc<World>) {
    let layers = small_or_skip!("what_is_written_is_bounded_and_gone");
    let path = write(&world, "written.tar", &make::saved(&layers, r#"{"Env":["PATH=/bin"]}"#));
    let sandbox = on(&world, image(&path)).await.unwrap();
    let script =
        "for at in / /etc /srv /bin; do echo x > $at/x; done 2>/dev/null; ls /x /etc/x /srv/x /bin/x 2>/dev/null
        for at in /tmp /var/tmp /var/lib /home /root /run; do echo x > $at/x && cat $at/x; done
        cat /var/lib/state; echo more >> /var/lib/state; cat /var/lib/state; rm /var/lib/state; ls /var/lib
        dd if=/dev/zero of=/var/full bs=1048576 count=100 2>/dev/null || echo full";
    let seen = sh(&sandbox, script).await;
    assert_eq!(seen.out, "x\nx\nx\nx\nx\nx\nstate\nstate\nmore\nx\nfull\n", "{seen:?}");
    sandbox.close().await;
    let sandbox = on(&world, image(&path)).await.unwrap();
    assert_eq!(sh(&sandbox, "cat /var/lib/state; ls /var/lib").await.out, "state\nstate\n");
}

fn layers_kept(world: &World) -> Vec<PathBuf> {
    let listed = fs::read_dir(world.data.join("roots/layers")).into_iter().flatten().flatten();
    let mut layers: Vec<PathBuf> = listed.map(|entry| entry.path()).collect();
    layers.sort();
    layers
}

async fn layers_are_shared_and_nobodys(world: Arc<World>) {
    let layers = small_or_skip!("layers_are_shared_and_nobodys");
    let one = write(&world, "one.tar", &make::saved(&layers, "{}"));
    let other = write(&world, "other.tar", &make::saved(&layers[..1], r#"{"User":"4321"}"#));
    let first = on(&world, image(&one)).await.unwrap();
    let kept = layers_kept(&world);
    let second = on(&world, image(&other)).await.unwrap();
    assert_eq!(layers_kept(&world), kept, "a layer that two images have is there once");
    let at = |layer: &str| format!("/bin/stat -c %i {layer}");
    let inode = sh(&first, &at("/bin/busybox")).await.out;
    assert_eq!(sh(&second, &at("/bin/busybox")).await.out, inode, "and both see the same file");
    assert_eq!(sh(&second, "/bin/stat -c %u /bin/busybox").await.out, "4321\n");
    // Nobody on the host gains by it.
    let cache = fs::metadata(world.data.join("roots")).unwrap();
    assert_eq!(cache.mode() & 0o777, 0o700);
    let files = kept.iter().filter_map(|layer| fs::metadata(layer.join("tree/bin/busybox")).ok());
    for file in files {
        assert_eq!(file.mode() & 0o6000, 0, "set-uid and set-gid are gone");
        // Of a layer with several owners the first of those ids is root's.
        assert!(!world.root || [0x0fff_ffff, 0x0ffe_ffff].contains(&file.uid()));
        assert_ne!(file.uid(), 0);
    }
    assert!(fs::read_dir(world.data.join("roots/staging")).unwrap().next().is_none());
}

async fn hostile_images_are_refused_by_name(world: Arc<World>) {
    let file = |content| Entry::File(content, 0o644);
    let rows: Vec<(&str, Vec<(&str, Entry<'_>)>)> = vec![
        ("climbs", vec![("../x", file(b"x"))]),
        ("absolute", vec![("/tmp/topside-escaped", file(b"x"))]),
        ("through_link", vec![("a", Entry::Link("/tmp")), ("a/topside-escaped", file(b"x"))]),
        ("link_escapes", vec![("a", Entry::Hard("/etc/passwd"))]),
        ("link_missing", vec![("a", Entry::Hard("etc/passwd"))]),
        ("device", vec![("a", Entry::Device)]),
        ("duplicate", vec![("a", file(b"x")), ("a", file(b"y"))]),
    ];
    let before = layers_kept(&world);
    for (rule, entries) in rows {
        let path = write(&world, "hostile.tar", &make::saved(&[make::tar(&entries)], "{}"));
        let refused = on(&world, image(&path)).await.err().unwrap().to_string();
        assert!(refused.contains("image_refused") && refused.contains(rule), "{rule}: {refused}");
        if world.root {
            // By who gives files away, too.
            let mut spec = world.spec(Workspace::Scratch);
            spec.root = image(&path);
            spec.accounts.user = Some("root".to_owned());
            let refused = world.provider.create(spec).await.err().unwrap().to_string();
            assert!(refused.contains("image_refused") && refused.contains(rule), "{rule}, with users: {refused}");
        }
    }
    let mut cut = make::saved(&[make::tar(&[("a", file(b"x"))])], "{}");
    cut[600] ^= 1;
    let path = write(&world, "changed.tar", &cut);
    assert!(on(&world, image(&path)).await.err().unwrap().to_string().contains("image_digest"));
    assert!(!Path::new("/tmp/topside-escaped").exists());
    assert_eq!(layers_kept(&world), before);
    assert!(fs::read_dir(world.data.join("roots/staging")).unwrap().next().is_none(), "nothing half is left");
}

async fn a_worker_that_is_killed_leaves_nothing(world: Arc<World>) {
    let large = make::tar(&(0..40_000).map(|_| ("d/", Entry::Directory)).collect::<Vec<_>>());
    let path = write(&world, "slow.tar", &make::saved(&[large], r#"{"User":"1"}"#));
    let before = layers_kept(&world);
    let attempt = {
        let (world, path) = (Arc::clone(&world), path.clone());
        tokio::spawn(async move { on(&world, image(&path)).await.map(drop) })
    };
    let mut killed = false;
    while !attempt.is_finished() {
        for pid in crate::support::children_named("topside-unpack") {
            let pid = rustix::process::Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
            // The first looks into the image; any that unpacks has a place to do so.
            let staged = fs::read_dir(world.data.join("roots/staging")).is_ok_and(|mut list| list.next().is_some());
            killed |= staged && rustix::process::kill_process(pid, rustix::process::Signal::KILL).is_ok();
        }
        tokio::task::yield_now().await;
    }
    let done = attempt.await.unwrap();
    if !killed {
        return skip("a_worker_that_is_killed_leaves_nothing", "it was done before it could be killed");
    }
    let error = done.unwrap_err().to_string();
    assert!(error.contains("ended early"), "{error}");
    assert_eq!(layers_kept(&world), before);
    assert!(fs::read_dir(world.data.join("roots/staging")).unwrap().next().is_none());
}

async fn a_layer_in_use_stays(world: Arc<World>) {
    let layers = small_or_skip!("a_layer_in_use_stays");
    let path = write(&world, "used.tar", &make::saved(&layers, "{}"));
    let sandbox = on(&world, image(&path)).await.unwrap();
    let is_free = |layer: &PathBuf| {
        let tree = fs::File::open(layer.join("tree")).unwrap();
        tree.try_lock().is_ok()
    };
    let used = || layers_kept(&world).iter().filter(|layer| !is_free(layer)).count();
    // Sandboxes of other cases may be on their way out.
    crate::support::until("only the sandbox itself holds its layers", || used() == 2).await;
    sandbox.close().await;
    drop(sandbox);
    assert_eq!(used(), 0, "and nobody else does");
}

fn template(base: Root, steps: &[&str]) -> Root {
    let steps = steps.iter().map(|step| (*step).to_owned()).collect();
    Root::Template(Box::new(Template { name: "made".to_owned(), base, steps }))
}

async fn a_template_is_made_once(world: Arc<World>) {
    let layers = small_or_skip!("a_template_is_made_once");
    let path = write(&world, "base.tar", &make::saved(&layers, r#"{"Env":["PATH=/bin"],"WorkingDir":"/srv"}"#));
    let steps = ["echo made > /etc/made; rm /etc/base", "cat /etc/made >> here; echo x > /opt 2>/dev/null"];
    let made = template(image(&path), &steps);
    let before = layers_kept(&world).len();
    let sandbox = on(&world, made.clone()).await.unwrap();
    let seen = sh(&sandbox, "cat /etc/made /srv/here; ls /etc/base 2>&1; echo x > /etc/made || echo kept").await;
    assert!(
        seen.out.starts_with("made\nmade\nls: /etc/base: No such file") && seen.out.ends_with("kept\n"),
        "{seen:?}"
    );
    sandbox.close().await;
    let after = layers_kept(&world);
    let written = |layers: &[PathBuf]| {
        let made = layers.iter().find(|layer| layer.join("tree/etc/made").exists()).unwrap();
        fs::metadata(made.join("tree/etc/made")).unwrap().ino()
    };
    let first = written(&after);
    let again = on(&world, made).await.unwrap();
    assert_eq!(written(&layers_kept(&world)), first, "the second sandbox uses what the first one had made");
    again.close().await;
    let over = template(template(image(&path), &steps), &["cat /etc/made > /etc/over"]);
    let sandbox = on(&world, over).await.unwrap();
    assert_eq!(sh(&sandbox, "cat /etc/over").await.out, "made\n");
    assert!(layers_kept(&world).len() >= before + 2);
    let host = on(&world, template(Root::default(), &["true"])).await.err().unwrap().to_string();
    assert!(host.contains("begin with an image"), "{host}");
}

async fn a_template_that_fails_says_where(world: Arc<World>) {
    let layers = small_or_skip!("a_template_that_fails_says_where");
    let path = write(&world, "fails.tar", &make::saved(&layers, r#"{"Env":["PATH=/bin"]}"#));
    let before = layers_kept(&world);
    let steps = ["echo a > /a", "echo out of luck >&2; exit 7", "echo never > /b"];
    let failed = on(&world, template(image(&path), &steps)).await.err().unwrap().to_string();
    assert!(failed.contains("step 2 of 3 failed with exit code 7: out of luck"), "{failed}");
    let left: Vec<_> = layers_kept(&world).into_iter().filter(|layer| !before.contains(layer)).collect();
    assert!(left.iter().all(|layer| layer.file_name().unwrap().to_string_lossy().starts_with("sha256-")), "{left:?}");
    assert!(fs::read_dir(world.data.join("roots/staging")).unwrap().next().is_none());
}

async fn a_whole_debian_in_each_form(world: Arc<World>) {
    let root = match make::debian() {
        Ok(root) => root,
        Err(why) => return skip("a_whole_debian_in_each_form", &why),
    };
    let script = "set -e; . /etc/os-release; echo $VERSION_CODENAME; bash -c 'echo ${BASH_VERSION%%.*}'
        seq 3 | sort -r | awk '{print $1}'; dpkg-query -W -f '${Package}\\n' bash; perl -e 'print 6*7, \"\\n\"'; id -un";
    let expected = "bookworm\n5\n3\n2\n1\nbash\n42\nagent\n";
    if world.root {
        let sandbox = on(&world, Root::Directory { path: root.clone() }).await.unwrap();
        let seen = sh(&sandbox, script).await;
        assert_eq!(seen.out, expected, "as a directory: {seen:?}");
        let shadow = sh(&sandbox, "cat /etc/shadow").await;
        assert_ne!(shadow.exit, sandbox::Exit::Code(0), "a directory is read with nobody's rights");
        sandbox.close().await;
    }
    let layers = vec![make::packed(&root)];
    let saved = write(&world, "debian.tar", &make::saved(&layers, "{}"));
    let layout = world.data.join("debian");
    make::layout(&layout, &layers, "{}", make::gzip);
    for path in [saved, layout] {
        let sandbox = on(&world, image(&path)).await.unwrap();
        let seen = sh(&sandbox, script).await;
        assert_eq!(seen.out, expected, "{}: {seen:?}", path.display());
        sandbox.close().await;
    }
}

/// What Debian's own tools install, under an image that says root.
async fn a_package_is_installed_by_a_step(world: Arc<World>) {
    let name = "a_package_is_installed_by_a_step";
    let root = match make::debian() {
        Ok(root) => root,
        Err(why) => return skip(name, &why),
    };
    let Some(package) = make::package(&world.data) else { return skip(name, "no dpkg-deb to make a package with") };
    let change = make::tar(&[("srv/", Entry::Directory), ("srv/greet.deb", Entry::File(&package, 0o644))]);
    let layers = vec![make::packed(&root), change];
    let path = write(
        &world,
        "packages.tar",
        &make::saved(&layers, r#"{"User":"root","Env":["PATH=/usr/sbin:/usr/bin:/sbin:/bin"]}"#),
    );
    let steps = ["apt-get -q -o APT::Sandbox::User=root install -y /srv/greet.deb", "test -s /var/lib/greeted"];
    let sandbox = on(&world, template(image(&path), &steps)).await.unwrap();
    let seen = sh(&sandbox, "greet; dpkg-query -W greet; stat -c %u:%a /usr/bin/greet; id -u").await;
    assert_eq!(seen.out, "hello\ngreet\t1.0\n0:755\n0\n", "{seen:?}");
    sandbox.close().await;
}
