//! TLS to the server: kept when asked for, checked always, never weakened.

use crate::support::NOW_MS;
use crate::support::postgres::{connect, database, server};
use crate::{open, try_open};
use journal::PostgresSettings;
use stdx::Clock;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

#[tokio::test]
async fn tls_is_what_the_url_says() {
    let Some(url) = database().await else { return };
    let ca_pem = server().unwrap().ca_pem.clone();
    if ca_pem.is_empty() {
        return crate::support::postgres::skip("tls_is_what_the_url_says", "the server given is not the tests' own");
    }
    let admin = connect(&url).await;
    // May do with the database what its owner may; let in with a password only.
    let name = url.rsplit('/').next().unwrap();
    let role = "DO $$ BEGIN CREATE ROLE secret LOGIN SUPERUSER PASSWORD 'hunter2'; EXCEPTION WHEN duplicate_object THEN END $$";
    admin.batch_execute(role).await.unwrap();
    let port = crate::port(&url);
    let secret = format!("postgres://secret:hunter2@127.0.0.1:{port}/{name}");
    for (url, trusted, expected) in [
        (format!("{url}?sslmode=require"), true, "tls"),
        (format!("{url}?sslmode=verify-full"), true, "tls"),
        (format!("{}?sslmode=require", url.replace("127.0.0.1", "localhost")), true, "tls"),
        (format!("{url}?sslmode=require"), false, "database_unreachable"),
        (url.clone(), true, "plain"),
        (format!("{url}?sslmode=disable&channel_binding=require"), true, "plain"),
        (format!("{secret}?sslmode=require&channel_binding=require"), true, "tls"),
        (format!("{secret}?sslmode=disable"), true, "plain"),
        // Without a password there is nothing to bind.
        (format!("{url}?sslmode=require&channel_binding=require"), true, "database_unreachable"),
        (format!("{}?sslmode=require", secret.replace("hunter2", "hunter3")), true, "database_unreachable"),
    ] {
        let settings =
            PostgresSettings { ca_pem: trusted.then(|| ca_pem.clone().into_bytes()), ..PostgresSettings::new(&*url) };
        let opened = try_open(&settings, &Clock::manual(NOW_MS)).await;
        let found = match &opened {
            Err(error) => {
                assert!(!error.to_string().contains("hunter"), "{error}");
                error.code()
            }
            Ok(_) => {
                let plain = "SELECT count(*) FROM pg_stat_activity JOIN pg_stat_ssl USING (pid)
                             WHERE datname = current_database() AND application_name = 'topside' AND NOT ssl";
                let plain: i64 = admin.query_one(plain, &[]).await.unwrap().get(0);
                if plain == 0 { "tls" } else { "plain" }
            }
        };
        assert_eq!(found, expected, "{url}, trusted: {trusted}");
        if let Ok(journal) = opened {
            journal.close().await.unwrap();
            gone(&admin).await;
        }
    }
}

/// Until the server has noticed that the connections were ended.
async fn gone(admin: &tokio_postgres::Client) {
    let there =
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'topside'";
    while admin.query_one(there, &[]).await.unwrap().get::<_, i64>(0) > 0 {}
}

/// A server that has no TLS learns nothing but that it was asked for it.
#[tokio::test]
async fn a_server_without_tls_gets_no_password() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let server = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut request = [0; 8];
        stream.read_exact(&mut request).await.unwrap();
        stream.write_all(b"N").await.unwrap();
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).await.unwrap();
        (request, rest)
    });
    let settings = PostgresSettings::new(format!("postgres://u:hunter2@127.0.0.1:{port}/d?sslmode=require"));
    let refused = try_open(&settings, &Clock::manual(NOW_MS)).await.unwrap_err();
    assert_eq!(refused.code(), "database_unreachable", "{refused}");
    let (request, rest) = server.await.unwrap();
    assert_eq!((request, rest), ([0, 0, 0, 8, 4, 210, 22, 47], Vec::new()));
}

#[tokio::test]
async fn a_journal_is_debugged_without_its_password() {
    let Some(url) = database().await else { return };
    let settings = PostgresSettings::new("postgres://u:hunter2@d/d");
    assert!(!format!("{settings:?}").contains("hunter2"));
    let journal = open(&url.replace("topside@", "topside:hunter2@"), &Clock::manual(NOW_MS)).await;
    assert!(!format!("{journal:?}").contains("hunter2"));
}
