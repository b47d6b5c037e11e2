//! Mounts images: a loop device that frees itself, and a detached mount. A workspace's only its sandbox gets, which sees files,
//! never the device, so it can't feed the kernel a file system of its own making; the pool's no sandbox gets (see `pool`).
#![expect(unsafe_code, reason = "loop devices and idmapped mounts have no safe wrapper")]

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags};
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};

const LOOP_CTL_GET_FREE: u32 = 0x4c82;
const LOOP_CONFIGURE: u32 = 0x4c0a;
const LOOP_GET_STATUS64: u32 = 0x4c05;
const LO_FLAGS_AUTOCLEAR: u32 = 4;
/// How often a free device may be taken by somebody else first.
const ATTEMPTS_MAX: usize = 64;

/// `struct loop_config` of `linux/loop.h`.
#[repr(C)]
struct LoopConfig {
    fd: u32,
    block_size: u32,
    info: LoopInfo,
    reserved: [u64; 8],
}

/// `struct loop_info64`; of its `numbers` the first two are the image's device and inode.
#[repr(C)]
struct LoopInfo {
    numbers: [u64; 5],
    number: u32,
    encrypt_type: u32,
    encrypt_key_size: u32,
    flags: u32,
    names: [u8; 64 + 64 + 32],
    init: [u64; 2],
}

impl Default for LoopInfo {
    fn default() -> Self {
        Self {
            numbers: [0; 5],
            number: 0,
            encrypt_type: 0,
            encrypt_key_size: 0,
            flags: 0,
            names: [0; 160],
            init: [0; 2],
        }
    }
}

/// What an image holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A workspace: ext4.
    Workspace,
    /// Images of workspaces: btrfs. Their blocks are written in place and without checksums, as those of any disk.
    Pool,
}

impl Kind {
    const fn file_system(self) -> &'static str {
        match self {
            Self::Workspace => "ext4",
            Self::Pool => "btrfs",
        }
    }

    const fn flags(self) -> &'static [&'static str] {
        match self {
            // A host crash loses what was not yet written in any case: no flush of the host's disk per unmount.
            Self::Workspace => &["nobarrier"],
            Self::Pool => &["nodatacow"],
        }
    }

    const fn options(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::Workspace => &[],
            // What is removed leaves the host's disk, too.
            Self::Pool => &[("space_cache", "v2"), ("discard", "async")],
        }
    }
}

/// Mounts `image`, nowhere yet. It is unmounted and its device freed when the last mount of it goes; until then the image's
/// open description, and with it its lock, lives on.
pub(crate) fn mount(image: BorrowedFd<'_>, kind: Kind) -> Result<OwnedFd, String> {
    let (device, number) = attach(image).map_err(|error| format!("loop device: {error}"))?;
    mount_device(&device, number, kind)
}

/// Mounts an image that is mounted already, by whomever: through the same device it is the same file system, not a second one
/// on the same blocks.
pub(crate) fn mount_again(image: BorrowedFd<'_>, kind: Kind) -> Result<OwnedFd, String> {
    let (device, number) = attached(image).map_err(|error| format!("loop device: {error}"))?;
    mount_device(&device, number, kind)
}

/// The device is held until its mount holds it.
fn mount_device(_device: &OwnedFd, number: i32, kind: Kind) -> Result<OwnedFd, String> {
    let mounted = || -> Result<OwnedFd, Errno> {
        let context = rustix::mount::fsopen(kind.file_system(), FsOpenFlags::FSOPEN_CLOEXEC)?;
        rustix::mount::fsconfig_set_string(context.as_fd(), "source", format!("/dev/loop{number}"))?;
        for flag in kind.flags() {
            rustix::mount::fsconfig_set_flag(context.as_fd(), *flag)?;
        }
        for (key, value) in kind.options() {
            rustix::mount::fsconfig_set_string(context.as_fd(), *key, *value)?;
        }
        rustix::mount::fsconfig_create(context.as_fd())?;
        let attributes =
            MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV | MountAttrFlags::MOUNT_ATTR_NOATIME;
        rustix::mount::fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, attributes)
    };
    mounted().map_err(|error| format!("mounting the image: {error}"))
}

/// The loop device that an image is attached to.
fn attached(image: BorrowedFd<'_>) -> Result<(OwnedFd, i32), Errno> {
    let image = rustix::fs::fstat(image)?;
    let (major, minor) = (u64::from(rustix::fs::major(image.st_dev)), u64::from(rustix::fs::minor(image.st_dev)));
    // As the kernel tells it of a loop device: `huge_encode_dev`.
    let wanted = ((minor & 0xff) | (major << 8) | ((minor & !0xff) << 12), image.st_ino);
    let names = std::fs::read_dir("/sys/block").into_iter().flatten().flatten().map(|entry| entry.file_name());
    let numbers = names.filter_map(|name| name.to_str()?.strip_prefix("loop")?.parse::<i32>().ok());
    for number in numbers {
        // One that is free, or goes at this moment, is not the one.
        let flags = OFlags::RDWR | OFlags::CLOEXEC;
        let Ok(device) = rustix::fs::open(format!("/dev/loop{number}"), flags, Mode::empty()) else { continue };
        let mut info = LoopInfo::default();
        // SAFETY: the structure has the kernel's layout and lives through the call.
        let told = unsafe { libc::ioctl(device.as_raw_fd(), LOOP_GET_STATUS64 as _, &raw mut info) };
        if told == 0 && (info.numbers[0], info.numbers[1]) == wanted {
            return Ok((device, number));
        }
    }
    Err(Errno::NXIO)
}

fn attach(image: BorrowedFd<'_>) -> Result<(OwnedFd, i32), Errno> {
    let control = rustix::fs::open("/dev/loop-control", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?;
    let mut config = LoopConfig {
        fd: u32::try_from(image.as_raw_fd()).map_err(|_| Errno::BADF)?,
        block_size: 4_096,
        info: LoopInfo { flags: LO_FLAGS_AUTOCLEAR, ..LoopInfo::default() },
        reserved: [0; 8],
    };
    for _ in 0..ATTEMPTS_MAX {
        // SAFETY: the request takes no argument and returns a number.
        let number = unsafe { libc::ioctl(control.as_raw_fd(), LOOP_CTL_GET_FREE as _) };
        if number < 0 {
            return Err(crate::raw::last());
        }
        let device = rustix::fs::open(format!("/dev/loop{number}"), OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?;
        // SAFETY: the structure has the kernel's layout and lives through the call.
        if unsafe { libc::ioctl(device.as_raw_fd(), LOOP_CONFIGURE as _, &raw mut config) } == 0 {
            return Ok((device, number));
        }
        let error = crate::raw::last();
        if error != Errno::BUSY {
            return Err(error);
        }
    }
    Err(Errno::BUSY)
}

/// Whether loop devices can be had here.
pub(crate) fn try_device() -> Result<(), Errno> {
    rustix::fs::open("/dev/loop-control", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()).map(drop)
}
