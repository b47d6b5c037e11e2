//! SQLite on the disk of the simulation: what it says is committed outlives every crash, and does not when the disk lies.

#![allow(clippy::unwrap_used, reason = "a failure is a panic")]

use rusqlite::{Connection, OpenFlags, params};
use sim::disk::{Crash, Disk, Faults, Mounted, VFS};
use sim::{Power, Time};
use std::collections::BTreeMap;
use stdx::Random;

/// Crashes of one disk.
const LIVES: u64 = 4;

/// A database on a disk that crashes, and what is known of it from outside.
struct House {
    disk: Disk,
    mounted: Mounted,
    random: Random,
    faults: Faults,
    /// Rows of transactions that were told to be committed.
    committed: BTreeMap<u64, Vec<u8>>,
    /// Rows of transactions whose end nobody knows.
    unknown: BTreeMap<u64, Vec<u8>>,
    next: u64,
}

impl House {
    fn new(name: &str, seed: u64, faults: Faults) -> Self {
        let random = Random::seeded(seed);
        let disk = Disk::new(Power::default(), Random::seeded(seed ^ 0xd15c), Time::default());
        let mounted = Mounted::new(format!("/{name}/{seed}"), &disk);
        Self { disk, mounted, random, faults, committed: BTreeMap::new(), unknown: BTreeMap::new(), next: 0 }
    }

    fn open(&self) -> rusqlite::Result<Connection> {
        let file = format!("{}/some.db", self.mounted.directory());
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags_and_vfs(file, flags, VFS)?;
        connection.execute_batch(
            "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA wal_autocheckpoint = 12;
             CREATE TABLE IF NOT EXISTS rows(n INTEGER PRIMARY KEY, bytes BLOB NOT NULL);",
        )?;
        Ok(connection)
    }

    /// Writes until the power goes, or for so many transactions.
    fn live(&mut self) -> rusqlite::Result<()> {
        let mut connection = self.open()?;
        let reader = self.open()?;
        self.disk.set_faults(self.faults);
        for _ in 0..40 {
            let transaction = connection.transaction()?;
            let mut rows = BTreeMap::new();
            for _ in 0..=self.random.below(3) {
                let length = usize::try_from(self.random.below(6_000)).unwrap();
                let bytes = vec![self.random.bytes::<1>()[0]; length];
                transaction.execute("INSERT INTO rows(n, bytes) VALUES (?1, ?2)", params![self.next, bytes])?;
                rows.insert(self.next, bytes);
                self.next += 1;
            }
            self.unknown.extend(rows.clone());
            match transaction.commit() {
                Ok(()) => {
                    self.unknown.retain(|n, _| !rows.contains_key(n));
                    self.committed.extend(rows);
                    let there: u64 = reader.query_row("SELECT count(*) FROM rows", [], |row| row.get(0))?;
                    assert!(there >= self.committed.len() as u64, "a reader sees what is committed");
                }
                Err(error) if self.disk.power().is_off() => return Err(error),
                // An I/O error: whether it is there is found out after the next start.
                Err(_) => {}
            }
        }
        Ok(())
    }

    /// What is wrong with what is there.
    fn judge(&mut self) -> Result<(), String> {
        self.disk.set_faults(Faults { lies: self.faults.lies, ..Faults::default() });
        let connection = self.open().map_err(|error| format!("it does not open: {error}"))?;
        let sound: String = connection
            .query_row("PRAGMA integrity_check", [], |row| row.get(0))
            .map_err(|error| format!("it can't be checked: {error}"))?;
        if sound != "ok" {
            return Err(format!("it is not sound: {sound}"));
        }
        let mut there = BTreeMap::new();
        let mut all = connection.prepare("SELECT n, bytes FROM rows").unwrap();
        let mut rows = all.query([]).unwrap();
        while let Some(row) = rows.next().map_err(|error| error.to_string())? {
            there.insert(row.get::<_, u64>(0).unwrap(), row.get::<_, Vec<u8>>(1).unwrap());
        }
        for (n, bytes) in &self.committed {
            if there.get(n) != Some(bytes) {
                return Err(format!("row {n} was committed and is not there as it was"));
            }
        }
        for (n, bytes) in &there {
            if self.committed.get(n).or_else(|| self.unknown.get(n)) != Some(bytes) {
                return Err(format!("row {n} was never written like this"));
            }
        }
        self.committed = there;
        self.unknown.clear();
        Ok(())
    }

    /// Lives and crashes.
    fn run(mut self) -> Result<u64, String> {
        for _ in 0..LIVES {
            self.disk.power().cut_after(self.random.below(150));
            let _ = self.live();
            self.disk.power().cut("end of the life");
            let crash = if self.random.below(3) == 0 { Crash::Process } else { Crash::Power };
            self.disk.restart(crash);
            self.disk.power().on();
            self.judge()?;
        }
        Ok(self.committed.len() as u64)
    }
}

#[test]
fn what_is_committed_survives_a_thousand_crashes() {
    let mut rows = 0;
    for seed in 0..1_000 / LIVES {
        rows +=
            House::new("honest", seed, Faults::default()).run().unwrap_or_else(|wrong| panic!("seed {seed}: {wrong}"));
    }
    assert!(rows > 1_000, "the crashes left room for work: {rows} rows");
}

#[test]
fn what_is_committed_survives_errors_and_a_full_disk() {
    let faults = Faults { writes_failed: 2_000, syncs_failed: 4_000, bytes_max: Some(150_000), ..Faults::default() };
    let mut operations = sim::disk::Operations::default();
    for seed in 0..150 {
        let house = House::new("troubled", seed, faults);
        let disk = house.disk.clone();
        house.run().unwrap_or_else(|wrong| panic!("seed {seed}: {wrong}"));
        operations.faults += disk.operations().faults;
    }
    assert!(operations.faults > 100, "faults happened: {operations:?}");
}

#[test]
fn a_disk_that_lies_about_syncs_loses_what_is_committed() {
    let lies = Faults { lies: true, ..Faults::default() };
    let red = (0..50).filter(|seed| House::new("lying", *seed, lies).run().is_err()).count();
    assert!(red > 5, "the check sees lost commits: {red} of 50");
}

#[test]
fn one_seed_leaves_one_disk() {
    let left = |name: &str| {
        let house = House::new(name, 11, Faults::default());
        let (disk, directory) = (house.disk.clone(), house.mounted.directory().to_owned());
        let rows = house.run().unwrap();
        (rows, disk.operations(), disk.durable(&format!("{directory}/some.db")).map(|bytes| bytes.len()))
    };
    assert_eq!(left("first"), left("second"));
}
