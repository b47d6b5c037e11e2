//! What an image says of how its programs run: environment, directory, user. What it would run is not asked.

use crate::Error;
use rustix::fs::{FileType, Mode, OFlags, ResolveFlags};
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::Read as _;
use std::os::fd::BorrowedFd;

/// Variables of an image at most.
const VARIABLES_MAX: usize = 512;
/// Bytes of all variables at most.
const ENVIRONMENT_BYTES_MAX: usize = 64 << 10;
/// Bytes of `/etc/passwd` or `/etc/group` that are looked into.
const ACCOUNTS_BYTES_MAX: u64 = 256 << 10;
/// The largest user or group id that a sandbox maps.
const ID_MAX: u32 = 65_534;

/// How programs of an image run.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Config {
    /// Variables, in their order.
    pub environment: Vec<(String, String)>,
    /// The directory that its steps begin in; absolute, or empty.
    pub workdir: String,
    /// `USER[:GROUP]`, each a name or a number; empty when it does not say.
    pub user: String,
}

/// Who programs of an image run as.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// User id inside.
    pub user: u32,
    /// Group id inside.
    pub group: u32,
}

/// The part of an image's configuration that is read.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct Written {
    env: Option<Vec<String>>,
    user: Option<String>,
    working_dir: Option<String>,
}

impl Config {
    pub(crate) fn read(written: Written) -> Result<Self, Error> {
        let env = written.env.unwrap_or_default();
        let bytes: usize = env.iter().map(|variable| variable.len() + 1).sum();
        if env.len() > VARIABLES_MAX || bytes > ENVIRONMENT_BYTES_MAX {
            let limit =
                format!("image_variables_max = {VARIABLES_MAX}, image_environment_bytes_max = {ENVIRONMENT_BYTES_MAX}");
            return Err(Error::Limit { limit });
        }
        let mut environment = Vec::new();
        for variable in env {
            let (name, value) = variable.split_once('=').unwrap_or((&variable, ""));
            if name.is_empty() || variable.contains('\0') {
                return Err(Error::form("its configuration holds a variable that is none"));
            }
            environment.push((name.to_owned(), value.to_owned()));
        }
        let workdir = written.working_dir.unwrap_or_default();
        let user = written.user.unwrap_or_default();
        if workdir.len() > 4_095 || user.len() > 255 || workdir.contains('\0') || user.contains('\0') {
            return Err(Error::form("its configuration holds a directory or user that is none"));
        }
        Ok(Self { environment, workdir, user })
    }
}

/// Who `user` is by the account files of `layers`, the topmost first: the first layer that has such a file counts. Empty: nobody
/// in particular.
///
/// # Errors
/// [`Error::Form`] for a name that is not there, or an id that no sandbox maps.
pub fn identify(user: &str, layers: &[BorrowedFd<'_>]) -> Result<Option<Identity>, Error> {
    if user.is_empty() {
        return Ok(None);
    }
    let (name, group) = user.split_once(':').map_or((user, None), |(name, group)| (name, Some(group)));
    let unknown = |what: &str, name: &str| {
        Error::form(format!("its {what} `{}` is not in the image", crate::path::shown(name.as_bytes())))
    };
    let account = find(layers, "etc/passwd", name, 3);
    let (id, own_group) = match (name.parse::<u32>().ok(), account) {
        (_, Some(fields)) => (number(&fields, 2), number(&fields, 3)),
        // A number need not be anybody.
        (Some(id), None) => (Some(id), Some(id)),
        (None, None) => return Err(unknown("user", name)),
    };
    let group = match group {
        None => own_group,
        Some(group) => match (group.parse::<u32>().ok(), find(layers, "etc/group", group, 2)) {
            (_, Some(fields)) => number(&fields, 2),
            (Some(id), None) => Some(id),
            (None, None) => return Err(unknown("group", group)),
        },
    };
    match (id, group) {
        (Some(user), Some(group)) if user <= ID_MAX && group <= ID_MAX => Ok(Some(Identity { user, group })),
        _ => Err(Error::form(format!("its user or group has no id up to {ID_MAX}"))),
    }
}

fn number(fields: &[String], index: usize) -> Option<u32> {
    fields.get(index)?.parse().ok()
}

/// The line of an account file whose name, or id, is `wanted`.
fn find(layers: &[BorrowedFd<'_>], file: &str, wanted: &str, fields_min: usize) -> Option<Vec<String>> {
    let Accounts::Text(text) = accounts(layers, file, ACCOUNTS_BYTES_MAX) else { return None };
    let lines = || text.lines().map(|line| line.split(':').map(str::to_owned).collect::<Vec<_>>());
    let by = |index: usize| {
        lines().find(|fields| fields.len() > fields_min && fields.get(index).is_some_and(|field| field == wanted))
    };
    by(0).or_else(|| by(2).filter(|_| wanted.bytes().all(|byte| byte.is_ascii_digit())))
}

/// What an account file holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Accounts {
    /// There is none.
    Missing,
    /// Its text.
    Text(String),
    /// More than was to be read.
    TooLarge,
}

/// The account file `file`, such as `etc/passwd`, of the topmost of `layers` that has one, reached through no link.
pub fn accounts(layers: &[BorrowedFd<'_>], file: &str, bytes_max: u64) -> Accounts {
    match layers.iter().find_map(|layer| read(*layer, file, bytes_max.saturating_add(1))) {
        None => Accounts::Missing,
        Some(text) if text.len() as u64 > bytes_max => Accounts::TooLarge,
        Some(text) => Accounts::Text(String::from_utf8_lossy(&text).into_owned()),
    }
}

fn read(layer: BorrowedFd<'_>, file: &str, bytes_max: u64) -> Option<Vec<u8>> {
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let found = rustix::fs::openat2(layer, file, flags, Mode::empty(), resolve).ok()?;
    let stat = rustix::fs::fstat(&found).ok()?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return None;
    }
    let mut text = Vec::new();
    File::from(found).take(bytes_max).read_to_end(&mut text).ok()?;
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd as _;

    #[test]
    fn users_are_found_by_name_and_by_number() {
        let (top, base) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        std::fs::create_dir(base.path().join("etc")).unwrap();
        let passwd =
            "root:x:0:0::/root:/bin/sh\nnode:x:1001:1002::/srv/node:/bin/sh\nbig:x:70000:0::/:/bin/sh\nbroken:x\n";
        std::fs::write(base.path().join("etc/passwd"), passwd).unwrap();
        std::fs::write(base.path().join("etc/group"), "root:x:0:\nstaff:x:50:\n").unwrap();
        let (top, base) = (File::open(top.path()).unwrap(), File::open(base.path()).unwrap());
        let check = |user: &str, expected: Option<(u32, u32)>| {
            let found = identify(user, &[top.as_fd(), base.as_fd()]);
            let found = found.ok().flatten().map(|identity| (identity.user, identity.group));
            assert_eq!(found, expected, "{user}");
        };
        check("", None);
        check("root", Some((0, 0)));
        check("node", Some((1_001, 1_002)));
        check("1001", Some((1_001, 1_002)));
        check("1001:50", Some((1_001, 50)));
        check("node:staff", Some((1_001, 50)));
        check("4242", Some((4_242, 4_242)));
        check("nobody", None);
        check("node:nogroup", None);
        check("broken", None);
        check("big", None);
        check("65535", None);
        check("-1", None);
    }

    #[test]
    fn a_file_of_accounts_is_never_a_link() {
        let layer = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink("/etc", layer.path().join("etc")).unwrap();
        let layer = File::open(layer.path()).unwrap();
        assert!(identify("root", &[layer.as_fd()]).is_err());
    }
}
