//! The disk as SQLite knows one: a virtual file system with locks and shared memory. The only file of this room with `unsafe`;
//! what the operations mean is in the safe code beside it.
#![expect(unsafe_code, reason = "SQLite calls a file system through a table of C functions")]

use super::locks::{Busy, Hold, Level};
use super::{Create, Disk, FileId, Trouble};
use parking_lot::Mutex;
use rusqlite::ffi;
use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::collections::BTreeMap;
use std::ffi::{CStr, c_char, c_int, c_void};
use std::path::Path;
use std::sync::{Arc, OnceLock};

/// The name under which SQLite knows the file system.
pub const VFS: &str = "topside-sim";
const VFS_C: &CStr = c"topside-sim";
/// The file system as a journal takes it.
pub const BEHIND: journal::Vfs = journal::Vfs { name: VFS, rewrite };

/// Bytes of a path at most.
const PATH_BYTES_MAX: c_int = 512;
/// What is told of a sector, as SQLite's own file system does; what is torn is smaller.
const SECTOR_TOLD_BYTES: c_int = 4_096;
/// A moment of 2023 as a Julian day in milliseconds; nothing that is asserted depends on it.
const MOMENT_MS: i64 = 212_550_000_000_000;

static DISKS: Mutex<BTreeMap<String, Disk>> = Mutex::new(BTreeMap::new());

/// A disk that SQLite can find, until this is dropped.
#[derive(Debug)]
pub struct Mounted {
    directory: String,
}

impl Mounted {
    /// Mounts a disk at a directory that no other disk has.
    ///
    /// # Panics
    /// When SQLite does not take the file system, or the directory is taken.
    pub fn new(directory: impl Into<String>, disk: &Disk) -> Self {
        register();
        let directory = directory.into();
        let before = DISKS.lock().insert(directory.clone(), disk.clone());
        assert!(before.is_none(), "{directory} is mounted already");
        Self { directory }
    }

    /// Where it is.
    pub fn directory(&self) -> &str {
        &self.directory
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        DISKS.lock().remove(&self.directory);
    }
}

/// An open file.
pub(super) struct Handle {
    disk: Disk,
    name: String,
    pub(super) file: FileId,
    pub(super) life: u64,
    id: u64,
    remove_at_end: bool,
    index: Option<Arc<Index>>,
}

/// The shared memory of a file: regions that SQLite writes to through raw pointers, freed when the last handle is gone.
#[derive(Default)]
pub(super) struct Index(Mutex<Vec<Region>>);

struct Region {
    memory: *mut u8,
    layout: Layout,
}

// SAFETY: a region is plain memory; this room runs every connection of a disk on one thread at a time.
unsafe impl Send for Region {}

impl Region {
    fn new(bytes: usize) -> Option<Self> {
        let layout = Layout::from_size_align(bytes, 16).ok().filter(|layout| layout.size() > 0)?;
        // SAFETY: the layout has a size above zero.
        let memory = unsafe { alloc_zeroed(layout) };
        if memory.is_null() {
            handle_alloc_error(layout);
        }
        Some(Self { memory, layout })
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        // SAFETY: the memory was allocated with this layout and is freed once.
        unsafe { dealloc(self.memory, self.layout) };
    }
}

/// What SQLite allocates for an open file.
#[repr(C)]
struct OpenFile {
    base: ffi::sqlite3_file,
    handle: *mut Handle,
}

fn register() {
    static REGISTERED: OnceLock<()> = OnceLock::new();
    REGISTERED.get_or_init(|| {
        let vfs = Box::leak(Box::new(ffi::sqlite3_vfs {
            iVersion: 2,
            szOsFile: c_int::try_from(size_of::<OpenFile>()).unwrap_or(c_int::MAX),
            mxPathname: PATH_BYTES_MAX,
            pNext: std::ptr::null_mut(),
            zName: VFS_C.as_ptr(),
            pAppData: std::ptr::null_mut(),
            xOpen: Some(open),
            xDelete: Some(delete),
            xAccess: Some(access),
            xFullPathname: Some(full_pathname),
            xDlOpen: None,
            xDlError: None,
            xDlSym: None,
            xDlClose: None,
            xRandomness: Some(randomness),
            xSleep: Some(sleep),
            xCurrentTime: Some(current_time),
            xGetLastError: Some(last_error),
            xCurrentTimeInt64: Some(current_time_ms),
            xSetSystemCall: None,
            xGetSystemCall: None,
            xNextSystemCall: None,
        }));
        // SAFETY: the table lives as long as the process.
        let registered = unsafe { ffi::sqlite3_vfs_register(vfs, 0) };
        assert_eq!(registered, ffi::SQLITE_OK, "SQLite takes the file system");
    });
}

static METHODS: ffi::sqlite3_io_methods = ffi::sqlite3_io_methods {
    iVersion: 2,
    xClose: Some(close),
    xRead: Some(read),
    xWrite: Some(write),
    xTruncate: Some(truncate),
    xSync: Some(sync),
    xFileSize: Some(file_size),
    xLock: Some(lock),
    xUnlock: Some(unlock),
    xCheckReservedLock: Some(check_reserved_lock),
    xFileControl: Some(file_control),
    xSectorSize: Some(sector_size),
    xDeviceCharacteristics: Some(device_characteristics),
    xShmMap: Some(shm_map),
    xShmLock: Some(shm_lock),
    xShmBarrier: Some(shm_barrier),
    xShmUnmap: Some(shm_unmap),
    xFetch: None,
    xUnfetch: None,
};

/// The disk on which a file lies.
fn disk_of(path: &str) -> Option<Disk> {
    let directory = path.rsplit_once('/')?.0;
    DISKS.lock().get(directory).cloned()
}

/// Writes a file's bytes once more, and syncs them.
fn rewrite(path: &Path) -> std::io::Result<()> {
    let name = path.to_str().unwrap_or_default();
    let disk = disk_of(name).ok_or(std::io::ErrorKind::NotFound)?;
    match rewrite_on(&disk, name) {
        Ok(()) | Err(Trouble::Missing) => Ok(()),
        Err(trouble) => Err(std::io::Error::other(trouble)),
    }
}

fn rewrite_on(disk: &Disk, name: &str) -> Result<(), Trouble> {
    let (file, id, life) = disk.open(name, Create::Never)?;
    let (disk, name) = (disk.clone(), name.to_owned());
    let handle = Handle { disk, name, file, life, id, remove_at_end: false, index: None };
    let mut bytes = vec![0; handle.disk.length(&handle)?];
    if bytes.is_empty() {
        return Ok(());
    }
    handle.disk.read(&handle, 0, &mut bytes)?;
    handle.disk.write(&handle, 0, &bytes)?;
    handle.disk.sync(&handle)
}

/// A path as SQLite gives it.
///
/// # Safety
/// `path` is null or a string that ends in a zero byte.
unsafe fn text<'a>(path: *const c_char) -> Option<&'a str> {
    if path.is_null() {
        return None;
    }
    // SAFETY: the caller promises it.
    unsafe { CStr::from_ptr(path) }.to_str().ok()
}

/// The handle behind an open file.
///
/// # Safety
/// `file` was opened by [`open`] and is not closed, and no other reference to its handle is alive.
unsafe fn handle<'a>(file: *mut ffi::sqlite3_file) -> &'a mut Handle {
    // SAFETY: `open` put a valid handle there; SQLite uses a connection's file from one thread at a time.
    unsafe { &mut *(*file.cast::<OpenFile>()).handle }
}

/// SQLite's word for a trouble.
const fn code(trouble: Trouble, io: c_int) -> c_int {
    match trouble {
        Trouble::Off | Trouble::Io => io,
        Trouble::Full => ffi::SQLITE_FULL,
        Trouble::Missing => ffi::SQLITE_CANTOPEN,
    }
}

fn done(result: Result<(), Trouble>, io: c_int) -> c_int {
    result.map_or_else(|trouble| code(trouble, io), |()| ffi::SQLITE_OK)
}

fn place(offset: i64) -> usize {
    usize::try_from(offset).unwrap_or(usize::MAX)
}

unsafe extern "C" fn open(
    _: *mut ffi::sqlite3_vfs,
    name: ffi::sqlite3_filename,
    file: *mut ffi::sqlite3_file,
    flags: c_int,
    flags_out: *mut c_int,
) -> c_int {
    let file = file.cast::<OpenFile>();
    // SAFETY: SQLite gives room for an `OpenFile`. Without methods it does not call `close`.
    unsafe { (*file).base.pMethods = std::ptr::null() };
    // SAFETY: SQLite's names end in a zero byte; a temporary file has none, and is not used here.
    let Some((disk, name)) = unsafe { text(name) }.and_then(|name| Some((disk_of(name)?, name))) else {
        return ffi::SQLITE_CANTOPEN;
    };
    let create = match (flags & ffi::SQLITE_OPEN_CREATE != 0, flags & ffi::SQLITE_OPEN_EXCLUSIVE != 0) {
        (false, _) => Create::Never,
        (true, false) => Create::Missing,
        (true, true) => Create::New,
    };
    // The journal makes its database file itself, outside of SQLite; here nobody else does.
    let create = if flags & ffi::SQLITE_OPEN_MAIN_DB != 0 { Create::Missing } else { create };
    let (id_of_file, id, life) = match disk.open(name, create) {
        Ok(opened) => opened,
        Err(trouble) => return code(trouble, ffi::SQLITE_CANTOPEN),
    };
    let handle = Handle {
        disk,
        name: name.to_owned(),
        file: id_of_file,
        life,
        id,
        remove_at_end: flags & ffi::SQLITE_OPEN_DELETEONCLOSE != 0,
        index: None,
    };
    // SAFETY: as above; `close` takes the handle back.
    unsafe {
        (*file).handle = Box::into_raw(Box::new(handle));
        (*file).base.pMethods = &METHODS;
        if !flags_out.is_null() {
            *flags_out = flags;
        }
    }
    ffi::SQLITE_OK
}

unsafe extern "C" fn close(file: *mut ffi::sqlite3_file) -> c_int {
    // SAFETY: SQLite closes an open file once; `open` made the box.
    let handle = unsafe { Box::from_raw((*file.cast::<OpenFile>()).handle) };
    // SAFETY: as above.
    unsafe { (*file).pMethods = std::ptr::null() };
    let _ = handle.disk.with_locks(&handle, |locks| locks.leave(handle.id));
    if handle.remove_at_end {
        // What can't be removed now is found and removed by whoever opens the database next.
        let _ = handle.disk.remove(&handle.name, false);
    }
    ffi::SQLITE_OK
}

unsafe extern "C" fn read(file: *mut ffi::sqlite3_file, into: *mut c_void, bytes: c_int, offset: i64) -> c_int {
    // SAFETY: an open file, and room for so many bytes.
    let (handle, into) =
        unsafe { (handle(file), std::slice::from_raw_parts_mut(into.cast::<u8>(), place(bytes.into()))) };
    match handle.disk.read(handle, place(offset), into) {
        Ok(there) if there == into.len() => ffi::SQLITE_OK,
        Ok(_) => ffi::SQLITE_IOERR_SHORT_READ,
        Err(trouble) => code(trouble, ffi::SQLITE_IOERR_READ),
    }
}

unsafe extern "C" fn write(file: *mut ffi::sqlite3_file, from: *const c_void, bytes: c_int, offset: i64) -> c_int {
    // SAFETY: an open file, and so many bytes.
    let (handle, from) = unsafe { (handle(file), std::slice::from_raw_parts(from.cast::<u8>(), place(bytes.into()))) };
    done(handle.disk.write(handle, place(offset), from), ffi::SQLITE_IOERR_WRITE)
}

unsafe extern "C" fn truncate(file: *mut ffi::sqlite3_file, bytes: i64) -> c_int {
    // SAFETY: an open file.
    let handle = unsafe { handle(file) };
    done(handle.disk.truncate(handle, place(bytes)), ffi::SQLITE_IOERR_TRUNCATE)
}

unsafe extern "C" fn sync(file: *mut ffi::sqlite3_file, _: c_int) -> c_int {
    // SAFETY: an open file.
    let handle = unsafe { handle(file) };
    done(handle.disk.sync(handle), ffi::SQLITE_IOERR_FSYNC)
}

unsafe extern "C" fn file_size(file: *mut ffi::sqlite3_file, bytes: *mut i64) -> c_int {
    // SAFETY: an open file.
    let handle = unsafe { handle(file) };
    match handle.disk.length(handle) {
        Ok(length) => {
            // SAFETY: room for the answer.
            unsafe { *bytes = i64::try_from(length).unwrap_or(i64::MAX) };
            ffi::SQLITE_OK
        }
        Err(trouble) => code(trouble, ffi::SQLITE_IOERR_FSTAT),
    }
}

const fn level(number: c_int) -> Level {
    match number {
        ffi::SQLITE_LOCK_NONE => Level::None,
        ffi::SQLITE_LOCK_SHARED => Level::Shared,
        ffi::SQLITE_LOCK_RESERVED => Level::Reserved,
        ffi::SQLITE_LOCK_PENDING => Level::Pending,
        _ => Level::Exclusive,
    }
}

const fn locked(answer: Option<Result<(), Busy>>, dead: c_int) -> c_int {
    match answer {
        Some(Ok(())) => ffi::SQLITE_OK,
        Some(Err(Busy)) => ffi::SQLITE_BUSY,
        None => dead,
    }
}

unsafe extern "C" fn lock(file: *mut ffi::sqlite3_file, to: c_int) -> c_int {
    // SAFETY: an open file.
    let handle = unsafe { handle(file) };
    let answer = handle.disk.with_locks(handle, |locks| locks.raise(handle.id, level(to)));
    locked(answer, ffi::SQLITE_IOERR_LOCK)
}

unsafe extern "C" fn unlock(file: *mut ffi::sqlite3_file, to: c_int) -> c_int {
    // SAFETY: an open file.
    let handle = unsafe { handle(file) };
    let _ = handle.disk.with_locks(handle, |locks| locks.lower(handle.id, level(to)));
    ffi::SQLITE_OK
}

unsafe extern "C" fn check_reserved_lock(file: *mut ffi::sqlite3_file, answer: *mut c_int) -> c_int {
    // SAFETY: an open file.
    let handle = unsafe { handle(file) };
    let reserved = handle.disk.with_locks(handle, |locks| locks.is_reserved());
    // SAFETY: room for the answer.
    unsafe { *answer = c_int::from(reserved == Some(true)) };
    ffi::SQLITE_OK
}

unsafe extern "C" fn file_control(_: *mut ffi::sqlite3_file, _: c_int, _: *mut c_void) -> c_int {
    ffi::SQLITE_NOTFOUND
}

unsafe extern "C" fn sector_size(_: *mut ffi::sqlite3_file) -> c_int {
    SECTOR_TOLD_BYTES
}

unsafe extern "C" fn device_characteristics(_: *mut ffi::sqlite3_file) -> c_int {
    // As SQLite's own file system says unless it is told otherwise: a torn write changes nothing outside of it.
    ffi::SQLITE_IOCAP_POWERSAFE_OVERWRITE
}

unsafe extern "C" fn shm_map(
    file: *mut ffi::sqlite3_file,
    region: c_int,
    bytes: c_int,
    extend: c_int,
    out: *mut *mut c_void,
) -> c_int {
    // SAFETY: an open file.
    let handle = unsafe { handle(file) };
    let index = match &handle.index {
        Some(index) => index.clone(),
        None => match handle.disk.index(handle) {
            Ok(index) => handle.index.insert(index).clone(),
            Err(trouble) => return code(trouble, ffi::SQLITE_IOERR_SHMOPEN),
        },
    };
    let region = place(region.into());
    let mut regions = index.0.lock();
    while extend != 0 && regions.len() <= region {
        let Some(new) = Region::new(place(bytes.into())) else { return ffi::SQLITE_IOERR_SHMSIZE };
        regions.push(new);
    }
    let memory = regions.get(region).map_or(std::ptr::null_mut(), |region| region.memory);
    // SAFETY: room for the answer. The memory stays until the last handle lets the index go.
    unsafe { *out = memory.cast() };
    ffi::SQLITE_OK
}

unsafe extern "C" fn shm_lock(file: *mut ffi::sqlite3_file, offset: c_int, count: c_int, flags: c_int) -> c_int {
    // SAFETY: an open file.
    let handle = unsafe { handle(file) };
    let slots = place(offset.into())..place((offset + count).into());
    let id = handle.id;
    let answer = handle.disk.with_locks(handle, |locks| {
        if flags & ffi::SQLITE_SHM_UNLOCK != 0 {
            locks.release(id, slots);
            return Ok(());
        }
        let hold = if flags & ffi::SQLITE_SHM_EXCLUSIVE != 0 { Hold::Exclusive } else { Hold::Shared };
        locks.take(id, slots, hold)
    });
    locked(answer, ffi::SQLITE_IOERR_SHMLOCK)
}

unsafe extern "C" fn shm_barrier(_: *mut ffi::sqlite3_file) {
    std::sync::atomic::fence(std::sync::atomic::Ordering::SeqCst);
}

unsafe extern "C" fn shm_unmap(file: *mut ffi::sqlite3_file, delete: c_int) -> c_int {
    // SAFETY: an open file.
    let handle = unsafe { handle(file) };
    let _ = handle.disk.with_locks(handle, |locks| locks.release_slots(handle.id));
    handle.index = None;
    if delete != 0 {
        handle.disk.drop_index(handle);
    }
    ffi::SQLITE_OK
}

unsafe extern "C" fn delete(_: *mut ffi::sqlite3_vfs, name: *const c_char, durably: c_int) -> c_int {
    // SAFETY: SQLite's names end in a zero byte.
    let found = unsafe { text(name) }.and_then(|name| Some((disk_of(name)?, name)));
    let Some((disk, name)) = found else { return ffi::SQLITE_IOERR_DELETE };
    match disk.remove(name, durably != 0) {
        Ok(()) => ffi::SQLITE_OK,
        Err(Trouble::Missing) => ffi::SQLITE_IOERR_DELETE_NOENT,
        Err(_) => ffi::SQLITE_IOERR_DELETE,
    }
}

unsafe extern "C" fn access(_: *mut ffi::sqlite3_vfs, name: *const c_char, _: c_int, answer: *mut c_int) -> c_int {
    // SAFETY: SQLite's names end in a zero byte.
    let found = unsafe { text(name) }.and_then(|name| Some((disk_of(name)?, name)));
    let there = found.is_some_and(|(disk, name)| disk.has(name));
    // SAFETY: room for the answer.
    unsafe { *answer = c_int::from(there) };
    ffi::SQLITE_OK
}

unsafe extern "C" fn full_pathname(
    _: *mut ffi::sqlite3_vfs,
    name: *const c_char,
    room: c_int,
    out: *mut c_char,
) -> c_int {
    // SAFETY: SQLite's names end in a zero byte.
    let name = unsafe { CStr::from_ptr(name) }.to_bytes_with_nul();
    if name.len() > place(room.into()) {
        return ffi::SQLITE_CANTOPEN;
    }
    // SAFETY: the name fits, and the two do not overlap.
    unsafe { std::ptr::copy_nonoverlapping(name.as_ptr(), out.cast::<u8>(), name.len()) };
    ffi::SQLITE_OK
}

unsafe extern "C" fn randomness(_: *mut ffi::sqlite3_vfs, bytes: c_int, out: *mut c_char) -> c_int {
    // SAFETY: room for so many bytes.
    let out = unsafe { std::slice::from_raw_parts_mut(out.cast::<u8>(), place(bytes.into())) };
    out.fill(7);
    bytes
}

unsafe extern "C" fn sleep(_: *mut ffi::sqlite3_vfs, micros: c_int) -> c_int {
    // One thread: nobody could give a lock back meanwhile, so waiting would be for nothing.
    micros
}

unsafe extern "C" fn current_time(_: *mut ffi::sqlite3_vfs, out: *mut f64) -> c_int {
    #[expect(clippy::cast_precision_loss, reason = "a Julian day of SQLite's is a floating point number")]
    // SAFETY: room for the answer.
    unsafe {
        *out = MOMENT_MS as f64 / 86_400_000.0;
    }
    ffi::SQLITE_OK
}

unsafe extern "C" fn current_time_ms(_: *mut ffi::sqlite3_vfs, out: *mut i64) -> c_int {
    // SAFETY: room for the answer.
    unsafe { *out = MOMENT_MS };
    ffi::SQLITE_OK
}

unsafe extern "C" fn last_error(_: *mut ffi::sqlite3_vfs, _: c_int, _: *mut c_char) -> c_int {
    0
}
