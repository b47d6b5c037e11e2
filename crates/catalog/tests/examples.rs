//! The projects under `examples/`: right as they stand, without a key and with one, and made of what they say they are.

#![allow(clippy::unwrap_used, reason = "a test may panic, its helpers too")]

use catalog::Catalog;
use domain::agent::ModelProvider;
use rusqlite::{Connection, OpenFlags, types::Value};
use std::fs;
use std::path::PathBuf;

fn examples() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../examples")
}

#[test]
fn every_example_is_right_without_a_key_and_with_one() {
    let mut seen = 0;
    for entry in fs::read_dir(examples()).unwrap() {
        let root = entry.unwrap().path();
        if !root.join("topside.yaml").is_file() {
            continue;
        }
        seen += 1;
        let name = root.display();
        for (key, provider) in [(None, ModelProvider::Script), (Some("key"), ModelProvider::Openai)] {
            let environment = |variable: &str| key.filter(|_| variable == "OPENAI_API_KEY").map(str::to_owned);
            let catalog = Catalog::load(&root, &environment).unwrap_or_else(|problems| panic!("{name}:\n{problems}"));
            assert_eq!(catalog.agents_off(), Vec::<String>::new(), "{name}");
            let closure = catalog.agent(None).unwrap();
            assert_eq!(closure.model.provider, provider, "{name}: {}", catalog.check_report());
        }
    }
    assert!(seen > 0, "no example was found");
}

/// Schema and rows of a database, as text; of `drafts` only the schema, since running the example fills it.
fn dump(connection: &Connection) -> Vec<String> {
    let mut lines = Vec::new();
    let mut statement = connection
        .prepare("select name, sql from sqlite_schema where sql is not null order by type desc, name")
        .unwrap();
    let schema: Vec<(String, String)> =
        statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).unwrap().map(Result::unwrap).collect();
    for (name, sql) in schema {
        lines.push(sql);
        if !["accounts", "invoices"].contains(&name.as_str()) {
            continue;
        }
        let mut rows = connection.prepare(&format!("select * from {name} order by id")).unwrap();
        let columns = rows.column_count();
        let told = rows.query_map([], |row| {
            let values = (0..columns).map(|at| row.get::<_, Value>(at));
            Ok(format!("{name} {:?}", values.collect::<Result<Vec<_>, _>>()?))
        });
        lines.extend(told.unwrap().map(Result::unwrap));
    }
    lines
}

#[test]
fn the_support_database_is_what_its_source_says() {
    let folder = examples().join("support");
    let made = Connection::open_in_memory().unwrap();
    made.execute_batch(&fs::read_to_string(folder.join("support.sql")).unwrap()).unwrap();
    let stored = Connection::open_with_flags(folder.join("support.db"), OpenFlags::SQLITE_OPEN_READ_ONLY).unwrap();
    let made = dump(&made);
    assert!(made.len() > 30, "{made:?}");
    assert_eq!(dump(&stored), made);
}
