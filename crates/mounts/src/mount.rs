//! The kernel's side of a mount: opening the device, and the mount itself, not yet attached anywhere.

use crate::Error;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags};
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};

/// What a mount is called in the list of mounts; nothing of the bucket.
const SOURCE: &str = "bucket";

/// Opens the device for one mount. The kernel wants it opened in the user namespace that mounts.
///
/// # Errors
/// [`Error::Device`].
pub fn device() -> Result<OwnedFd, Error> {
    let flags = OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC;
    rustix::fs::open("/dev/fuse", flags, Mode::empty()).map_err(|errno| Error::Device {
        what: "/dev/fuse",
        detail: errno.to_string(),
        missing: matches!(errno, Errno::NOENT | Errno::ACCESS | Errno::NODEV | Errno::NXIO),
    })
}

/// Who may read a mount.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Readers {
    /// Processes of the user and group that it belongs to.
    Owner,
    /// All processes of the user namespace that mounts.
    All,
}

/// Makes the mount for an opened device: read-only, without devices and set-uid programs, with the kernel's own permission
/// checks. It ends when the last copy of the device is closed.
///
/// # Errors
/// [`Error::Device`].
pub fn mount(device: BorrowedFd<'_>, owner: (u32, u32), readers: Readers) -> Result<OwnedFd, Error> {
    let made = || -> Result<OwnedFd, Errno> {
        let context = rustix::mount::fsopen("fuse", FsOpenFlags::FSOPEN_CLOEXEC)?;
        let context = context.as_fd();
        for (key, value) in [
            ("source", SOURCE.to_owned()),
            ("fd", device.as_raw_fd().to_string()),
            ("rootmode", "40000".to_owned()),
            ("user_id", owner.0.to_string()),
            ("group_id", owner.1.to_string()),
        ] {
            rustix::mount::fsconfig_set_string(context, key, value)?;
        }
        let others = (readers == Readers::All).then_some("allow_other");
        for flag in ["default_permissions", "ro"].into_iter().chain(others) {
            rustix::mount::fsconfig_set_flag(context, flag)?;
        }
        rustix::mount::fsconfig_create(context)?;
        let attributes =
            MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV | MountAttrFlags::MOUNT_ATTR_RDONLY;
        rustix::mount::fsmount(context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)
    };
    made().map_err(|errno| Error::Device {
        what: "mounting",
        detail: errno.to_string(),
        missing: errno == Errno::NODEV,
    })
}
