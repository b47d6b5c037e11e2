//! Who programs inside run as, where a sandbox has more than one user: PID 1 is then the user 0 of its own user namespace, nobody
//! on the host, with the few powers that it takes to become another user and to keep their files; what it starts has none of
//! them, unless it is user 0 itself.

use crate::sys;
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

/// The capabilities of user 0 inside, over nothing but what belongs to the sandbox's own ids: CHOWN, DAC_OVERRIDE, FOWNER, FSETID,
/// KILL, SETGID, SETUID.
pub const ROOT_CAPABILITIES: u64 = 1 | 1 << 1 | 1 << 3 | 1 << 4 | 1 << 5 | 1 << 6 | 1 << 7;
/// What PID 1 has beyond these: giving up capabilities for good, in what it starts.
pub const SETPCAP: u64 = 1 << 8;
/// The group that sees all processes, to which PID 1 alone belongs.
pub const SEEING_GROUP: u32 = 65_533;
/// What a sandbox calls its user 0.
pub const ROOT_NAME: &str = "root";

/// A user inside.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Account {
    /// Its name.
    pub name: String,
    /// Its number.
    pub user: u32,
    /// Its own group.
    pub group: u32,
    /// Further groups.
    pub groups: Vec<u32>,
    /// Where its files are.
    pub home: String,
}

/// All users and groups that are known by name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Accounts {
    /// The users.
    pub users: Vec<Account>,
    /// Groups, by name and number.
    pub groups: Vec<(String, u32)>,
    /// The one that every sandbox has.
    pub own: Account,
    /// Who runs what does not say it.
    pub main: Account,
}

impl Accounts {
    /// The account that is asked for.
    pub(crate) fn of(&self, name: Option<&str>) -> Result<&Account, String> {
        let Some(name) = name else { return Ok(&self.main) };
        let mut known = self.users.iter().chain([&self.own]);
        known.find(|account| account.name == name).ok_or_else(|| format!("there is no user `{name}` in this sandbox"))
    }

    /// The number of a group.
    pub(crate) fn group(&self, name: &str) -> Option<u32> {
        self.groups.iter().find(|(known, _)| known == name).map(|(_, number)| *number)
    }
}

impl Account {
    /// In a forked child: becomes this user for good. User 0 keeps what it may, everybody else nothing.
    pub(crate) fn become_it(&self) -> Result<(), Errno> {
        let kept = if self.user == 0 { ROOT_CAPABILITIES } else { 0 };
        sys::become_user(self.user, self.group, &self.groups, kept)
    }
}
