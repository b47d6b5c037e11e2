//! Tools of kind `sql` on real files.

use crate::support::{World, text, tool};
use domain::{CallStatus, Contract, Effect, ToolRun};
use serde_json::{Value, json};
use std::sync::Arc;
use tools::Outcome;

const SCHEMA: &str = r#"{
  "type": "object",
  "properties": {"v": {}, "w": {}, "limit": {"type": "integer", "default": 2}}
}"#;

fn database(path: &std::path::Path) -> rusqlite::Connection {
    let connection = rusqlite::Connection::open(path).unwrap();
    connection
        .execute_batch(
            "create table account (id integer primary key, name text, balance real, note blob);
             insert into account values (1, 'Ada', 1.5, x'00ff'), (2, 'Bob', 2, null), (3, 'Cy \"C\"', 1e300, null);",
        )
        .unwrap();
    connection
}

fn world_of(query: &str, effect: Effect, change: impl FnOnce(&mut Contract, &mut u32)) -> World {
    let (mut contract, mut rows_max) = (Contract::of(effect), 100);
    change(&mut contract, &mut rows_max);
    let run = ToolRun::Sql { database: "support.db".into(), query: query.into(), rows_max };
    let world = World::new(&[domain::Tool { contract, ..tool("ask", effect, SCHEMA, run) }]);
    database(&world.project.path().join("support.db"));
    world
}

async fn ask(query: &str, effect: Effect, arguments: &Value) -> (World, Outcome) {
    let world = world_of(query, effect, |_, _| {});
    let outcome = world.call("ask", &arguments.to_string()).await;
    (world, outcome)
}

async fn check(query: &str, arguments: Value, expected: &str) {
    let (_, outcome) = ask(query, Effect::Read, &arguments).await;
    assert_eq!((outcome.status, text(&outcome)), (CallStatus::Ok, expected), "{query} with {arguments}");
}

#[tokio::test]
async fn arguments_are_bound_by_their_type() {
    check("select id, name from account where id = :v", json!({"v": 1}), r#"[{"id":1,"name":"Ada"}]"#).await;
    check("select id from account where id = @v", json!({"v": 9}), "[]").await;
    check("select typeof($v) as t, $v as v", json!({"v": "1"}), r#"[{"t":"text","v":"1"}]"#).await;
    check("select typeof(:v) as t, :v as v", json!({"v": 1.5}), r#"[{"t":"real","v":1.5}]"#).await;
    check("select typeof(:v) as t, :v as v", json!({"v": true}), r#"[{"t":"integer","v":1}]"#).await;
    check("select typeof(:v) as t, :v as v", json!({"v": null}), r#"[{"t":"null","v":null}]"#).await;
    check("select typeof(:v) as t", json!({}), r#"[{"t":"null"}]"#).await;
    check("select :v as v", json!({"v": [1, "a"]}), r#"[{"v":"[1,\"a\"]"}]"#).await;
    check("select :v as v", json!({"v": i64::MIN}), r#"[{"v":-9223372036854775808}]"#).await;
    check("select id from account limit :limit", json!({}), "[{\"id\":1},\n{\"id\":2}]").await;
    check(
        "select name, balance, note from account where id = 1",
        json!({}),
        r#"[{"name":"Ada","balance":1.5,"note":{"base64":"AP8="}}]"#,
    )
    .await;
    check("select 1 as a, 2 as a, 3 as a", json!({}), r#"[{"a":1,"a_2":2,"a_3":3}]"#).await;
    check(
        "select ':v' as a, \"name\" as b from account /* :x */ where id = 3 -- :y",
        json!({}),
        r#"[{"a":":v","b":"Cy \"C\""}]"#,
    )
    .await;
    check(
        "with recursive n(i) as (select 1 union all select i + 1 from n where i < 3) select sum(i) as s from n;",
        json!({}),
        r#"[{"s":6}]"#,
    )
    .await;
}

#[tokio::test]
async fn text_is_never_sql() {
    for attack in
        ["' or 1=1 --", "1; drop table account", "1) union select name from sqlite_master --", "\0'", "\u{202e}';"]
    {
        let (world, outcome) = ask("select id from account where name = :v", Effect::Read, &json!({"v": attack})).await;
        assert_eq!((outcome.status, text(&outcome)), (CallStatus::Ok, "[]"), "{attack}");
        let left = rusqlite::Connection::open(world.project.path().join("support.db"))
            .unwrap()
            .query_row("select count(*) from account", [], |row| row.get::<_, i64>(0))
            .unwrap();
        assert_eq!(left, 3, "{attack}");
    }
}

#[tokio::test]
async fn a_statement_does_no_more_than_declared() {
    for (query, effect, code) in [
        ("delete from account", Effect::Read, "sql_refused"),
        ("update account set name = 'x' returning id", Effect::Read, "sql_refused"),
        ("insert into account(name) values ('x')", Effect::Read, "sql_refused"),
        ("create table t (a)", Effect::Read, "sql_refused"),
        ("create temp table t (a)", Effect::Read, "sql_refused"),
        ("drop table account", Effect::Read, "sql_refused"),
        ("begin", Effect::Read, "sql_refused"),
        ("vacuum into 'copy.db'", Effect::Read, "sql_refused"),
        ("attach 'other.db' as o", Effect::Read, "sql_refused"),
        ("attach 'other.db' as o", Effect::Write, "sql_refused"),
        ("pragma query_only = 0", Effect::Read, "sql_refused"),
        ("pragma writable_schema = 1", Effect::Write, "sql_refused"),
        ("begin", Effect::Write, "sql_refused"),
        ("savepoint s", Effect::Write, "sql_refused"),
        ("create virtual table v using fts5(a)", Effect::Write, "sql_refused"),
        ("select load_extension('x')", Effect::Read, "sql_refused"),
        ("select load_extension('x')", Effect::Write, "sql_refused"),
        ("select 1; select 2", Effect::Read, "sql_refused"),
        ("delete from account; delete from account", Effect::Write, "sql_refused"),
        ("select 1; -- and a comment\n", Effect::Read, ""),
        ("select nothing from account", Effect::Read, "sql_failed"),
        ("selec 1", Effect::Read, "sql_failed"),
        ("insert into account(id) values (1)", Effect::Write, "sql_constraint"),
    ] {
        let (world, outcome) = ask(query, effect, &json!({})).await;
        assert_eq!(outcome.code.unwrap_or_default(), code, "{query}: {outcome:?}");
        let files = std::fs::read_dir(world.project.path()).unwrap().count();
        assert_eq!(files, 2, "{query} left files");
    }
}

#[tokio::test]
async fn writes_change_the_file_and_say_how_much() {
    let (world, outcome) = ask("update account set name = :v where id > 1", Effect::Write, &json!({"v": "Eve"})).await;
    assert_eq!(text(&outcome), r#"{"rows_changed":2}"#);
    let (_, outcome) =
        ask("insert into account(name) values (:v) returning id, name", Effect::Write, &json!({"v": "Dan"})).await;
    assert_eq!(text(&outcome), r#"[{"id":4,"name":"Dan"}]"#);
    let connection = rusqlite::Connection::open(world.project.path().join("support.db")).unwrap();
    let names: i64 =
        connection.query_row("select count(*) from account where name = 'Eve'", [], |row| row.get(0)).unwrap();
    assert_eq!(names, 2);
}

#[tokio::test]
async fn numbers_too_large_are_refused() {
    let (_, outcome) = ask("select :v", Effect::Read, &json!({"v": u64::MAX})).await;
    assert_eq!(
        (outcome.code, text(&outcome)),
        (Some("sql_parameter"), "`ask` failed: v: the number does not fit into 64 bits")
    );
}

#[tokio::test]
async fn many_rows_are_bounded_and_say_so() {
    let count = "with recursive n(i) as (select 1 union all select i + 1 from n where i < 100000) select i, 'some text' as t from n";
    let world = world_of(count, Effect::Read, |_, rows_max| *rows_max = 3);
    let outcome = world.call("ask", "{}").await;
    assert!(
        text(&outcome).ends_with(
            "{\"i\":3,\"t\":\"some text\"}]\n[the statement has more rows than these 3; narrow it down to see others]"
        ),
        "{outcome:?}"
    );
    assert_eq!(outcome.whole, None);

    let world =
        world_of(count, Effect::Read, |contract, rows_max| (contract.output_bytes_max, *rows_max) = (1_000, 5_000));
    let outcome = world.call("ask", "{}").await;
    let (rows, marker) = text(&outcome).split_once("\n[").unwrap();
    let shown: Vec<Value> = serde_json::from_str(rows).unwrap();
    assert!(rows.len() <= 1_000 && shown.len() > 20, "{rows}");
    assert!(
        marker.starts_with(&format!("{} of 5000 rows left out; read on with read_output ", 5_000 - shown.len())),
        "{marker}"
    );
    let whole: Vec<Value> = serde_json::from_slice(&outcome.whole.clone().unwrap()).unwrap();
    assert_eq!(whole.len(), 5_000);
    let next = marker.split_once("read_output ").unwrap().1.split_once(']').unwrap().0;
    let page = world.call("read_output", next).await;
    assert!(text(&page).contains(&format!(",\n{{\"i\":{},", shown.len() + 1)), "{page:?}");

    let wide =
        "with recursive n(i) as (select 1 union all select i + 1 from n) select hex(zeroblob(100000)) as z from n";
    let world = world_of(wide, Effect::Read, |_, rows_max| *rows_max = u32::MAX);
    let outcome = world.call("ask", "{}").await;
    assert!(outcome.whole.unwrap().len() as u64 <= tools::WHOLE_BYTES_MAX);
}

#[tokio::test]
async fn a_statement_that_takes_too_long_is_interrupted() {
    let endless = "with recursive n(i) as (select 1 union all select i + 1 from n) select count(*) from n";
    let world = world_of(endless, Effect::Read, |contract, _| contract.timeout_ms = 50);
    // More than there are threads: were one not interrupted, the last would find none.
    for _ in 0..6 {
        let outcome = world.call("ask", "{}").await;
        assert_eq!((outcome.status, outcome.code), (CallStatus::TimedOut, Some("tool_timeout")));
    }
    let slow =
        "insert into account(name) with recursive n(i) as (select 1 union all select i + 1 from n) select 'x' from n";
    let world = world_of(slow, Effect::Write, |contract, _| contract.timeout_ms = 50);
    assert_eq!(world.call("ask", "{}").await.status, CallStatus::TimedOut);
    let connection = rusqlite::Connection::open(world.project.path().join("support.db")).unwrap();
    connection.busy_timeout(std::time::Duration::from_secs(10)).unwrap();
    connection.execute("insert into account(name) values ('after')", []).unwrap();
    let rows: i64 = connection.query_row("select count(*) from account", [], |row| row.get(0)).unwrap();
    assert_eq!(rows, 4, "what was interrupted left rows");
}

#[tokio::test]
async fn a_lock_is_waited_for() {
    let world = world_of("update account set name = 'x' where id = 1", Effect::Write, |contract, _| {
        contract.timeout_ms = 20_000
    });
    let holder = rusqlite::Connection::open(world.project.path().join("support.db")).unwrap();
    holder.execute_batch("begin immediate; update account set name = 'y'").unwrap();
    let call = world.call("ask", "{}");
    let release = async {
        tokio::task::yield_now().await;
        holder.execute_batch("commit").unwrap();
    };
    let (outcome, ()) = tokio::join!(call, release);
    assert_eq!(text(&outcome), r#"{"rows_changed":1}"#);
}

#[tokio::test]
async fn only_files_of_the_project_are_opened() {
    let outside = tempfile::tempdir().unwrap();
    database(&outside.path().join("secret.db"));
    for name in
        ["/etc/passwd", "../secret.db", "link.db", "none.db", "file:support.db?mode=rwc", ":memory:", "text.db", ""]
    {
        let run = ToolRun::Sql { database: name.into(), query: "select * from account".into(), rows_max: 1 };
        let world = World::new(&[tool("ask", Effect::Write, SCHEMA, run)]);
        std::os::unix::fs::symlink(outside.path().join("secret.db"), world.project.path().join("link.db")).unwrap();
        std::fs::write(
            world.project.path().join("text.db"),
            "no database, but long enough to be looked at by SQLite\n".repeat(20),
        )
        .unwrap();
        let outcome = world.call("ask", "{}").await;
        assert_eq!((outcome.status, outcome.code), (CallStatus::Error, Some("sql_database")), "{name}: {outcome:?}");
        let files = std::fs::read_dir(world.project.path()).unwrap().count();
        assert_eq!(files, 3, "{name} made a file");
    }
}

#[tokio::test]
async fn a_file_that_was_replaced_is_opened_anew() {
    let world = world_of("select count(*) as n from account", Effect::Read, |_, _| {});
    let path = world.project.path().join("support.db");
    assert_eq!(text(&world.call("ask", "{}").await), r#"[{"n":3}]"#);
    let other = world.project.path().join("other.db");
    database(&other).execute("delete from account", []).unwrap();
    std::fs::rename(other, path).unwrap();
    assert_eq!(text(&world.call("ask", "{}").await), r#"[{"n":0}]"#);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_callers_share_the_threads() {
    let world = Arc::new(world_of("select name from account where id = :v", Effect::Read, |_, _| {}));
    let tasks: Vec<_> = (0..32)
        .map(|task: i64| {
            let world = Arc::clone(&world);
            tokio::spawn(async move {
                for call in 0..25 {
                    let id = (task + call) % 3 + 1;
                    let outcome = world.call("ask", &json!({"v": id}).to_string()).await;
                    let name = ["Ada", "Bob", "Cy \\\"C\\\""][usize::try_from(id - 1).unwrap()];
                    assert_eq!(text(&outcome), format!("[{{\"name\":\"{name}\"}}]"));
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
}
