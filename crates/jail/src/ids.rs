//! Which ids a sandbox's users have: on the host, where each sandbox has a range of its own and its root is nobody, and inside,
//! where users and groups have names. A sandbox for which nobody declared users has one id out of its range, and knows no other.

use crate::grant::{self, Grant, Lent, PART_IDS, Part};
use crate::roots::failed;
use crate::stack::{Base, Identity, Wanted};
use guest::{Account, Accounts, ROOT_NAME, SEEING_GROUP};
use rustix::io::Errno;
use sandbox::{Error, Finding};
use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::io;
use std::os::fd::AsFd as _;

/// Ids of one range, which is all that a sandbox may have.
pub(crate) const RANGE_IDS: u32 = 0x1_0000;
/// Host ids that sandboxes of a root launcher have: far from people and services, in so many ranges.
const HOST_ID_FIRST: u32 = 0x1000_0000;
const RANGES: u32 = 0x1000;
/// Where the numbers of declared users and groups begin.
const DECLARED_FIRST: u32 = 2_000;
/// Bytes of an account file that users are added to; a larger one is refused.
const ACCOUNTS_BYTES_MAX: u64 = 12 << 10;
/// What the host's tools find as accounts.
const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534::/nonexistent:/usr/sbin/nologin\n";
const GROUP: &str = "root:x:0:\nnogroup:x:65534:\n";

/// The range of a sandbox, by its slot. No two that live at once in one launcher have the same: see [`crate::stem::Stems`].
pub(crate) fn range(slot: u64) -> u32 {
    // Launchers begin at different ones, so that two on one machine seldom meet; if they do, each sandbox still has namespaces
    // of its own.
    let first = std::process::id().wrapping_mul(0x9e37_79b1) >> 20;
    (first + u32::try_from(slot % u64::from(RANGES)).unwrap_or(0)) % RANGES
}

/// So many ids in a row, and what they are on the other side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Extent {
    pub(crate) from: u32,
    pub(crate) to: u32,
    pub(crate) count: u32,
}

impl Extent {
    pub(crate) const fn one(from: u32, to: u32) -> Self {
        Self { from, to, count: 1 }
    }
}

/// The lines of an id map.
pub(crate) fn lines(extents: &[Extent]) -> String {
    extents.iter().fold(String::new(), |mut text, Extent { from, to, count }| {
        let _ = writeln!(text, "{from} {to} {count}");
        text
    })
}

/// What the ids inside of one sandbox are on the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Map {
    /// There is one user and one group.
    One { inside: Identity, outside: (u32, u32) },
    /// All ids of a range, from this host id on. `own` is the user that every sandbox has.
    Range { first: u32, own: Identity },
    /// A part of what an ordinary user may give away.
    Part(Part),
}

impl Map {
    /// That of a sandbox of a root launcher.
    pub(crate) fn of_root(slot: u64, own: Identity, accounts: Option<&Accounts>) -> Self {
        let first = HOST_ID_FIRST + range(slot) * RANGE_IDS;
        match accounts {
            Some(_) => Self::Range { first, own },
            // As in a range: the same user is the same id, whoever stands beside.
            None => Self::One { inside: own, outside: (first + own.user % RANGE_IDS, first + own.group % RANGE_IDS) },
        }
    }

    /// That of a sandbox of an ordinary user's launcher, who has one id.
    pub(crate) fn of_ordinary(own: Identity) -> Self {
        Self::One { inside: own, outside: (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw()) }
    }

    /// Gives a process in a new user namespace its ids.
    pub(crate) fn write(self, pid: i32) -> io::Result<()> {
        let (users, groups) = match self {
            Self::Part(part) => return part.write(pid).map_err(io::Error::other),
            Self::One { inside, outside } => {
                (Extent::one(inside.user, outside.0), Extent::one(inside.group, outside.1))
            }
            Self::Range { first, .. } => {
                let all = Extent { from: 0, to: first, count: RANGE_IDS };
                (all, all)
            }
        };
        fs::write(format!("/proc/{pid}/uid_map"), lines(&[users]))?;
        fs::write(format!("/proc/{pid}/gid_map"), lines(&[groups]))
    }

    /// The host's user and group that files of a root belong to: the sandbox's one user, or its root.
    pub(crate) const fn of_files(self) -> (u32, u32) {
        match self {
            Self::One { outside, .. } => outside,
            Self::Range { first, .. } => (first, first),
            Self::Part(Part { user, group }) => (user, group),
        }
    }

    /// What the owners in a kept workspace are on the host: there the sandbox's own user always has the same number, whatever it
    /// has inside, so that a workspace goes with another root, too.
    pub(crate) fn of_workspace(self) -> [Vec<Extent>; 2] {
        match self {
            // No mount of such a sandbox is made outside of it.
            Self::Part(_) => [Vec::new(), Vec::new()],
            Self::One { outside: (user, group), .. } => {
                [vec![Extent::one(guest::USER_ID, user)], vec![Extent::one(guest::USER_ID, group)]]
            }
            Self::Range { first, own } => [swapped(first, own.user), swapped(first, own.group)],
        }
    }
}

/// A whole range in which the sandbox's own user and the one number that stands for it in workspaces change places.
fn swapped(first: u32, own: u32) -> Vec<Extent> {
    let kept = guest::USER_ID;
    let mut places = vec![kept, own];
    places.retain(|place| *place < RANGE_IDS);
    places.sort_unstable();
    let mut extents = Vec::new();
    let mut from = 0;
    for place in places {
        if place > from {
            extents.push(Extent { from, to: first + from, count: place - from });
        }
        if place >= from {
            let other = if place == kept && own < RANGE_IDS { own } else { kept };
            extents.push(Extent::one(place, first + other));
            from = place + 1;
        }
    }
    if from < RANGE_IDS {
        extents.push(Extent { from, to: first + from, count: RANGE_IDS - from });
    }
    extents
}

/// Resolves what is declared: every user and group that a root knows, and those that are declared besides, by number. They also
/// get their lines in the account files that stand over the root.
/// All of their numbers are below `below`.
pub(crate) fn resolve(
    declared: &sandbox::Accounts,
    wanted: &mut Wanted,
    below: u32,
) -> Result<Option<Accounts>, Error> {
    if !declared.are_declared() {
        return Ok(None);
    }
    let mut table = Table::of(text(wanted, "etc/passwd", PASSWD)?, text(wanted, "etc/group", GROUP)?, below);
    let Identity { user, group } = wanted.identity;
    if user.max(group) >= below {
        let hint = "hint: leave `users`, `groups` and `user` out, or name another user";
        return Err(failed(format!("the image's user {user}:{group} is beyond what a sandbox with users has; {hint}")));
    }
    let own = table.own(user, group);
    table.user(ROOT_NAME, Some((0, 0)), "/root")?;
    for user in &declared.users {
        table.user(&user.name, None, &format!("/home/{}", user.name))?;
    }
    for group in &declared.groups {
        table.group(&group.name, &group.users)?;
    }
    let main = declared.user.as_deref().unwrap_or(&own.name);
    let main = match main {
        name if name == own.name || name == guest::USER_NAME => own.clone(),
        name => table.accounts().into_iter().find(|account| account.name == name).ok_or_else(|| {
            failed(format!("there is no user `{name}`; hint: declare it, or name one that the root has"))
        })?,
    };
    let users = table.accounts().into_iter().filter(|account| account.name != own.name).collect();
    let groups = table.groups.iter().map(|group| (group.name.clone(), group.number)).collect();
    for (path, text) in [("etc/passwd", table.passwd), ("etc/group", table.group_text)] {
        wanted.files.retain(|(known, _)| known != path);
        wanted.files.push((path.to_owned(), text));
    }
    Ok(Some(Accounts { users, groups, own, main }))
}

/// The lowest number that no user has in a sandbox of root's, or of an ordinary user's.
pub(crate) const fn below(root: bool) -> u32 {
    if root { SEEING_GROUP } else { grant::BELOW }
}

/// Whether sandboxes here can have users of their own. None of the walls depends on it.
pub(crate) fn finding(root: bool) -> Finding {
    let grant = if root { None } else { Some(Grant::find()) };
    let (detail, fix) = match &grant {
        None => (
            format!("{RANGE_IDS} ids for each sandbox that declares users, from {HOST_ID_FIRST} on; one for any other"),
            None,
        ),
        Some(Ok(grant)) => (
            format!(
                "{PART_IDS} ids for each sandbox that declares users, {} at once; one for any other",
                grant.parts()
            ),
            None,
        ),
        Some(Err(missing)) => {
            let fix =
                "only if manifests are to have `users` and `groups`: what the hint says, or run the service as root";
            (format!("one id for all: nothing inside is told apart by its user; {missing}"), Some(fix.to_owned()))
        }
    };
    Finding { wall: "user_ids".to_owned(), holds: fix.is_none(), detail, fix }
}

/// Why an ordinary user's sandboxes can have but one user; `None`: they can have more.
pub(crate) fn missing(root: bool) -> Option<String> {
    if root { None } else { Grant::find().err() }
}

/// Gives ids to an ordinary user's sandbox with users; rather the ones that its workspace has on disk.
pub(crate) fn lend(wanted: &Wanted, rather: Option<u32>) -> Result<Option<Lent>, Error> {
    let refused = |detail: String| Error::from(crate::door::Failure::wall("user_namespace", detail));
    if wanted.accounts.is_none() {
        return Ok(None);
    }
    if let Base::Layers { owned: true, .. } = wanted.base {
        let hint = "hint: the host's tools or a directory as its root, or run the service as root";
        return Err(refused(format!("an ordinary user can't give an image's files to users of a sandbox; {hint}")));
    }
    let grant = Grant::find().map_err(refused)?;
    let lent = grant.lend(rather).map_err(refused)?;
    let in_use = || Error::Limit {
        limit: format!(
            "ids_parts_max = {}: so many sandboxes of this user have users of their own; \
             hint: a longer range in /etc/subuid and /etc/subgid",
            grant.parts()
        ),
    };
    lent.ok_or_else(in_use).map(Some)
}

/// The root of a sandbox that only reads a workspace: its files keep their owners when they have several.
pub(crate) fn reading(declared: &sandbox::Accounts) -> Result<Wanted, Error> {
    let mut wanted = Wanted::default();
    if declared.are_declared() {
        let own = sandbox::Accounts { user: Some(guest::USER_NAME.to_owned()), ..sandbox::Accounts::default() };
        wanted.accounts = resolve(&own, &mut wanted, SEEING_GROUP)?;
    }
    Ok(wanted)
}

/// An account file as the root has it.
fn text(wanted: &Wanted, path: &str, of_host: &str) -> Result<String, Error> {
    if let Some((_, text)) = wanted.files.iter().find(|(known, _)| known == path) {
        return Ok(text.clone());
    }
    let Base::Layers { .. } = &wanted.base else { return Ok(of_host.to_owned()) };
    let layers: Vec<_> = wanted.opened.iter().map(|layer| layer.as_fd()).collect();
    match ::image::accounts(&layers, path, ACCOUNTS_BYTES_MAX) {
        ::image::Accounts::Missing => Ok(of_host.to_owned()),
        ::image::Accounts::Text(text) => Ok(text),
        ::image::Accounts::TooLarge => {
            Err(failed(format!("no users can be added to /{path}: accounts_bytes_max = {ACCOUNTS_BYTES_MAX}")))
        }
    }
}

struct Person {
    name: String,
    user: u32,
    group: u32,
    home: String,
}

struct Circle {
    name: String,
    number: u32,
    members: Vec<String>,
}

/// Users and groups while they are put together.
struct Table {
    users: Vec<Person>,
    groups: Vec<Circle>,
    passwd: String,
    group_text: String,
    below: u32,
}

impl Table {
    /// What account files say; lines that say nothing, or of ids that no sandbox has, are passed over.
    fn of(mut passwd: String, mut group_text: String, below: u32) -> Self {
        for text in [&mut passwd, &mut group_text] {
            if !text.is_empty() && !text.ends_with('\n') {
                text.push('\n');
            }
        }
        let id = |text: Option<&&str>| text.and_then(|text| text.parse().ok()).filter(|id: &u32| *id < below);
        let fields = |line: &str| -> Option<(Vec<String>, u32)> {
            let fields: Vec<&str> = line.split(':').collect();
            let number = id(fields.get(2))?;
            Some((fields.into_iter().map(str::to_owned).collect(), number))
        };
        let user = |line: &str| {
            let (fields, user) = fields(line)?;
            let group = fields.get(3)?.parse().ok().filter(|id: &u32| *id < below)?;
            Some(Person { name: fields.first()?.clone(), user, group, home: fields.get(5)?.clone() })
        };
        let group = |line: &str| {
            let (fields, number) = fields(line)?;
            let members = fields.get(3).map_or("", String::as_str).split(',').filter(|name| !name.is_empty());
            let members = members.map(str::to_owned).collect();
            Some(Circle { name: fields.first()?.clone(), number, members })
        };
        let users = passwd.lines().filter_map(user).collect();
        let groups = group_text.lines().filter_map(group).collect();
        Self { users, groups, passwd, group_text, below }
    }

    /// A number that no user and no group has.
    fn free(&self) -> u32 {
        let users = self.users.iter().flat_map(|user| [user.user, user.group]);
        let taken: BTreeSet<u32> = users.chain(self.groups.iter().map(|group| group.number)).collect();
        (DECLARED_FIRST..self.below).find(|id| !taken.contains(id)).unwrap_or(DECLARED_FIRST)
    }

    /// The user that every sandbox has, under the name that the root gives it.
    fn own(&mut self, user: u32, group: u32) -> Account {
        if !self.users.iter().any(|known| known.user == user) {
            self.add(guest::USER_NAME, user, group, guest::WORKSPACE);
        }
        let name = self.users.iter().find(|known| known.user == user).map(|known| known.name.clone());
        let name = name.unwrap_or_else(|| guest::USER_NAME.to_owned());
        let groups = self.memberships(&name, group);
        Account { name, user, group, groups, home: guest::WORKSPACE.to_owned() }
    }

    fn add(&mut self, name: &str, user: u32, group: u32, home: &str) {
        let _ = writeln!(self.passwd, "{name}:x:{user}:{group}::{home}:/bin/sh");
        self.users.push(Person { name: name.to_owned(), user, group, home: home.to_owned() });
        if !self.groups.iter().any(|known| known.number == group) {
            let _ = writeln!(self.group_text, "{name}:x:{group}:");
            self.groups.push(Circle { name: name.to_owned(), number: group, members: Vec::new() });
        }
    }

    /// A user of this name: the root's own, or a new one.
    fn user(&mut self, name: &str, ids: Option<(u32, u32)>, home: &str) -> Result<(), Error> {
        let known = self.users.iter().find(|known| known.name == name).map(|known| known.user);
        match known {
            Some(0) if name != ROOT_NAME => {
                Err(failed(format!("the user `{name}` is root by another name in this root")))
            }
            Some(_) => Ok(()),
            None => {
                let free = self.free();
                let (user, group) = ids.unwrap_or((free, free));
                self.add(name, user, group, home);
                Ok(())
            }
        }
    }

    /// A group of this name with these members besides those that it has.
    fn group(&mut self, name: &str, members: &[String]) -> Result<(), Error> {
        let number = self.groups.iter().find(|known| known.name == name).map(|known| known.number);
        if number == Some(0) {
            return Err(failed(format!("the group `{name}` is root's; hint: declare another")));
        }
        let number = number.unwrap_or_else(|| self.free());
        match self.groups.iter_mut().find(|known| known.name == name) {
            Some(known) => known.members.extend(members.iter().cloned()),
            None => {
                let _ = writeln!(self.group_text, "{name}:x:{number}:{}", members.join(","));
                self.groups.push(Circle { name: name.to_owned(), number, members: members.to_vec() });
            }
        }
        Ok(())
    }

    /// The groups of a user besides its own.
    fn memberships(&self, name: &str, own: u32) -> Vec<u32> {
        let of = self.groups.iter().filter(|group| group.number != own && group.members.iter().any(|it| it == name));
        of.map(|group| group.number).collect()
    }

    fn accounts(&self) -> Vec<Account> {
        let account = |known: &Person| Account {
            name: known.name.clone(),
            user: known.user,
            group: known.group,
            groups: self.memberships(&known.name, known.group),
            home: known.home.clone(),
        };
        self.users.iter().map(account).collect()
    }
}

/// In the first process, as root of its user namespace, once its root stands: each declared user's home, and the workspace's top,
/// when it was nobody's in particular, for whose it is now.
pub(crate) fn settle(accounts: &Accounts) -> Result<(), (String, Errno)> {
    use rustix::fs::{AtFlags, CWD, Gid, Mode, Uid};
    let give = |path: &str, account: &Account| {
        let (user, group) = (Uid::from_raw(account.user), Gid::from_raw(account.group));
        rustix::fs::chownat(CWD, path, Some(user), Some(group), AtFlags::SYMLINK_NOFOLLOW)
    };
    for account in &accounts.users {
        let Some(name) = account.home.strip_prefix("/home/") else { continue };
        if name.is_empty() || name.contains('/') || name.starts_with('.') {
            continue;
        }
        let made = match rustix::fs::mkdir(account.home.as_str(), Mode::from_raw_mode(0o700)) {
            Ok(()) => give(&account.home, account),
            // The root has one.
            Err(Errno::EXIST) => Ok(()),
            Err(errno) => Err(errno),
        };
        made.map_err(|errno| (account.home.clone(), errno))?;
    }
    let at = |errno| (guest::WORKSPACE.to_owned(), errno);
    let top = rustix::fs::stat(guest::WORKSPACE).map_err(at)?;
    // One that somebody else was given stays so.
    let is_free = top.st_uid == accounts.own.user || top.st_uid == 0;
    if is_free { give(guest::WORKSPACE, &accounts.main).map_err(at) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_is_far_from_everybody_and_its_own_user_changes_places() {
        let identity = |user, group| Identity { user, group };
        for own in [identity(1_000, 1_000), identity(1_234, 0), identity(0, 0), identity(65_535, 999)] {
            let map = Map::Range { first: 0x1234_0000, own };
            for (extents, own) in map.of_workspace().iter().zip([own.user, own.group]) {
                assert_eq!(extents.iter().map(|extent| extent.count).sum::<u32>(), RANGE_IDS, "{extents:?}");
                let mut next = 0;
                for extent in extents {
                    assert_eq!(extent.from, next, "{extents:?}");
                    next += extent.count;
                }
                let to = |id: u32| {
                    let extent = extents.iter().find(|extent| (extent.from..extent.from + extent.count).contains(&id));
                    extent.map(|extent| extent.to + id - extent.from - 0x1234_0000).unwrap()
                };
                assert_eq!((to(1_000), to(own)), (own, 1_000));
                for id in [1, 33, 2_000, 65_534].into_iter().filter(|id| *id != own) {
                    assert_eq!(to(id), id);
                }
            }
        }
        let ranges: BTreeSet<u32> = (0..u64::from(RANGES)).map(range).collect();
        assert_eq!(ranges.len(), RANGES as usize, "each its own");
        for slot in [0, 1, 4_095, u64::MAX] {
            let Map::One { outside: (user, group), .. } = Map::of_root(slot, Identity::default(), None) else {
                panic!()
            };
            assert!((0x1000_0000..0x2000_0000).contains(&user) && user == group && user % RANGE_IDS == 1_000);
        }
    }

    fn declared(users: &[&str], groups: &[(&str, &[&str])], user: Option<&str>) -> sandbox::Accounts {
        let names = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect();
        sandbox::Accounts {
            users: users.iter().map(|&name| sandbox::manifest::User { name: name.to_owned() }).collect(),
            groups: groups
                .iter()
                .map(|(name, users)| sandbox::manifest::Group { name: (*name).to_owned(), users: names(users) })
                .collect(),
            user: user.map(str::to_owned),
        }
    }

    fn wanted(files: &[(&str, &str)], user: u32) -> Wanted {
        let files = files.iter().map(|(path, text)| ((*path).to_owned(), (*text).to_owned())).collect();
        Wanted { files, identity: Identity { user, group: user }, ..Wanted::default() }
    }

    #[test]
    fn users_have_names_and_numbers() {
        let mut none = wanted(&[], 1_000);
        assert_eq!(resolve(&sandbox::Accounts::default(), &mut none, SEEING_GROUP).unwrap(), None);
        assert!(none.files.is_empty());
        let mut host = wanted(&[], 1_000);
        let accounts = declared(&["alice", "bob"], &[("team", &["alice", "bob"])], Some("alice"));
        let table = resolve(&accounts, &mut host, SEEING_GROUP).unwrap().unwrap();
        assert_eq!((table.own.name.as_str(), table.own.user, table.own.home.as_str()), ("agent", 1_000, "/workspace"));
        assert_eq!(
            (table.main.name.as_str(), table.main.user, table.main.home.as_str()),
            ("alice", 2_000, "/home/alice")
        );
        assert_eq!(table.main.groups, [2_002]);
        let names: Vec<_> = table.users.iter().map(|user| (user.name.as_str(), user.user)).collect();
        assert_eq!(names, [("root", 0), ("alice", 2_000), ("bob", 2_001)]);
        let passwd = &host.files.iter().find(|(path, _)| path == "etc/passwd").unwrap().1;
        assert!(
            passwd.contains("\nalice:x:2000:2000::/home/alice:/bin/sh\n") && passwd.starts_with("root:"),
            "{passwd}"
        );
        let group = &host.files.iter().find(|(path, _)| path == "etc/group").unwrap().1;
        assert!(group.ends_with("team:x:2002:alice,bob\n"), "{group}");
    }

    #[test]
    fn what_a_root_knows_keeps_its_numbers() {
        let files = [
            (
                "etc/passwd",
                "root:x:0:0::/root:/bin/sh\nnode:x:1234:1235::/home/node:/bin/sh\ntoor:x:0:0::/:/bin/sh\nbroken",
            ),
            ("etc/group", "root:x:0:\nnode:x:1235:\nstaff:x:50:node\nhigh:x:4294967295:\n"),
        ];
        let mut image = wanted(&files, 1_234);
        let accounts = declared(&["node", "new"], &[("staff", &["new"])], None);
        let table = resolve(&accounts, &mut image, SEEING_GROUP).unwrap().unwrap();
        assert_eq!(
            (table.main.name.as_str(), table.main.user, table.main.groups.as_slice()),
            ("node", 1_234, &[50][..])
        );
        let new = table.users.iter().find(|user| user.name == "new").unwrap();
        assert_eq!((new.user, new.groups.as_slice()), (2_000, &[50][..]));
        assert!(!table.groups.iter().any(|(name, _)| name == "high"));
        for bad in [
            declared(&["toor"], &[], None),
            declared(&[], &[("root", &[])], None),
            declared(&[], &[], Some("nobody-here")),
        ] {
            assert_eq!(
                resolve(&bad, &mut wanted(&files, 1_234), SEEING_GROUP).unwrap_err().code(),
                "sandbox_start",
                "{bad:?}"
            );
        }
        for user in [65_533, 65_536, u32::MAX] {
            let error = resolve(&declared(&["a"], &[], None), &mut wanted(&[], user), SEEING_GROUP).unwrap_err();
            assert!(error.to_string().contains("beyond"), "{user}: {error}");
            let map = Map::Range { first: 0x1000_0000, own: Identity { user, group: user } };
            assert!(map.of_workspace().iter().flatten().all(|extent| extent.from < RANGE_IDS), "{user}");
        }
    }
}
