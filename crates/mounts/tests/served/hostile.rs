//! Over a server that is no friend: keys that are no names, answers that are none, answers that never come.

use crate::support::Shown;
use mounts::Limits;
use std::os::unix::process::CommandExt as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

/// What a server does with a request's first line: an answer, or nothing for ever.
type Play = Arc<dyn Fn(&str) -> Option<Vec<u8>> + Send + Sync>;

/// Serves one request per connection.
async fn server(play: Play) -> u16 {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            let play = Arc::clone(&play);
            tokio::spawn(async move {
                let (mut asked, mut buffer) = (Vec::new(), [0; 4_096]);
                while !asked.windows(4).any(|end| end == b"\r\n\r\n") {
                    match socket.read(&mut buffer).await {
                        Ok(length) if length > 0 => asked.extend_from_slice(&buffer[..length]),
                        _ => return,
                    }
                }
                let text = String::from_utf8_lossy(&asked).into_owned();
                match play(&text) {
                    Some(answer) => drop(socket.write_all(&answer).await),
                    // Held open until the asker gives up.
                    None => drop(socket.read(&mut buffer).await),
                }
            });
        }
    });
    port
}

fn answer(status: &str, headers: &str, body: &[u8]) -> Vec<u8> {
    let head = format!("HTTP/1.1 {status}\r\nconnection: close\r\ncontent-length: {}\r\n{headers}\r\n", body.len());
    [head.as_bytes(), body].concat()
}

fn list(entries: &str) -> Vec<u8> {
    let text = format!(
        "<?xml version=\"1.0\"?><ListBucketResult><EncodingType>url</EncodingType>{entries}</ListBucketResult>"
    );
    answer("200 OK", "", text.as_bytes())
}

fn object(key: &str, bytes: u64) -> String {
    format!("<Contents><Key>{key}</Key><Size>{bytes}</Size><ETag>\"v1\"</ETag></Contents>")
}

fn below(prefix: &str) -> String {
    format!("<CommonPrefixes><Prefix>{prefix}</Prefix></CommonPrefixes>")
}

/// The prefix that a list is asked for; `None`: it is no list.
fn prefix(asked: &str) -> Option<String> {
    let line = asked.lines().next()?;
    let query = line.split_once('?')?.1.split(' ').next()?;
    let value = query.split('&').find_map(|pair| pair.strip_prefix("prefix="))?;
    Some(value.replace("%2F", "/"))
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_keys_are_left_out() {
    let long = "x".repeat(256);
    let entries = [
        object("good", 1),
        object("..", 1),
        object(".", 1),
        object("nul%00", 1),
        object("line%0Abreak", 1),
        object("escape%1B%5B2J", 1),
        object("c1%C2%9B", 1),
        object("not%FFtext", 1),
        object(&long, 1),
        object("both", 1),
        object("%2Fabsolute", 1),
        object("twice", 1),
        object("twice", 2),
        object("over%2Fthere", 1),
        below("both%2F"),
        below("..%2F"),
        below("%2F"),
        below("a%2F%2F"),
        below("dir%2F"),
        "<Unknown>&lt;</Unknown>".to_owned(),
    ]
    .concat();
    let play: Play = Arc::new(move |asked| match prefix(asked) {
        Some(prefix) if prefix.is_empty() => Some(list(&entries)),
        Some(prefix) if prefix.starts_with("both") || prefix == "dir/" => Some(list(&object("both%2Fin", 1))),
        Some(_) => Some(list("")),
        None => Some(answer("404 Not Found", "", b"")),
    });
    let port = server(play).await;
    let Some(shown) = Shown::new("hostile_keys_are_left_out", port, "", Limits::default()).await else { return };
    assert_eq!(shown.names("").await.unwrap(), ["both/", "dir/", "good", "twice"]);
    for path in ["nul", "line\nbreak", "absolute", "over/there", "escape\u{1b}[2J", &long] {
        assert!(matches!(shown.errno(path).await, Some(2 | 36)), "{path:?}");
    }
    assert_eq!(shown.names("dir").await.unwrap_err().raw_os_error(), Some(2), "keys of another prefix are not shown");
    shown.end().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_that_are_none_are_errors() {
    let rows: [(&str, Vec<u8>, i32); 9] = [
        ("no XML", answer("200 OK", "", b"hello"), 5),
        ("an empty answer", answer("200 OK", "", b""), 5),
        ("forbidden", answer("403 Forbidden", "", b"<Error/>"), 13),
        ("unauthorised", answer("401 Unauthorized", "", b""), 13),
        ("no bucket", answer("404 Not Found", "", b""), 5),
        ("elsewhere", answer("301 Moved", "location: http://127.0.0.1:1/\r\n", b""), 5),
        ("not even HTTP", b"SSH-2.0-x\r\n\r\n".to_vec(), 5),
        ("far too long", answer("200 OK", "", &vec![b' '; 9 << 20]), 5),
        (
            "a list without an end",
            list(&format!("{}<NextContinuationToken>t</NextContinuationToken>", object("x", 1))),
            75,
        ),
    ];
    for (name, bytes, errno) in rows {
        let play: Play = Arc::new(move |_| Some(bytes.clone()));
        let port = server(play).await;
        let limits = Limits { directory_entries_max: 20, ..Limits::default() };
        let Some(shown) = Shown::new("answers_that_are_none_are_errors", port, "", limits).await else { return };
        assert_eq!(shown.names("").await.unwrap_err().raw_os_error(), Some(errno), "{name}");
        shown.end().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn contents_that_are_not_as_listed_are_errors() {
    let partial = |bytes: &[u8], total: usize| {
        let headers = format!(
            "content-range: bytes 0-{}/{total}\r\netag: \"v1\"\r\nlast-modified: Thu, 01 Jan 1970 00:00:00 GMT\r\n",
            bytes.len().max(1) - 1
        );
        answer("206 Partial Content", &headers, bytes)
    };
    let rows: [(&str, Vec<u8>, Result<usize, i32>); 6] = [
        ("as listed", partial(&[7; 100], 100), Ok(100)),
        ("shorter", partial(&[7; 50], 50), Err(5)),
        ("longer", partial(&[7; 200], 200), Err(5)),
        ("another version", answer("412 Precondition Failed", "", b""), Err(116)),
        ("forbidden", answer("403 Forbidden", "", b""), Err(13)),
        ("gone", answer("404 Not Found", "", b""), Err(2)),
    ];
    for (name, bytes, expected) in rows {
        let play: Play = Arc::new(move |asked| match prefix(asked) {
            Some(prefix) if prefix.is_empty() || prefix == "file" => Some(list(&object("file", 100))),
            Some(_) => Some(list("")),
            None => Some(bytes.clone()),
        });
        let port = server(play).await;
        let Some(shown) = Shown::new("contents_that_are_not_as_listed", port, "", Limits::default()).await else {
            return;
        };
        let read = shown.read("file").await.map(|bytes| bytes.len());
        assert_eq!(read.map_err(|error| error.raw_os_error().unwrap()), expected, "{name}");
        shown.end().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stalled_server_is_an_error_after_the_deadline_and_hurts_nothing_else() {
    let stalled = Arc::new(AtomicBool::new(false));
    let (seen, asked) = (Arc::clone(&stalled), Arc::new(AtomicUsize::new(0)));
    let count = Arc::clone(&asked);
    let play: Play = Arc::new(move |asked| {
        count.fetch_add(1, Ordering::SeqCst);
        match prefix(asked) {
            Some(_) if seen.load(Ordering::SeqCst) => None,
            Some(prefix) if prefix.is_empty() => Some(list(&object("file", 100))),
            Some(_) => Some(list("")),
            None => None,
        }
    });
    let port = server(play).await;
    let limits = Limits { operation_ms_max: 700, valid_ms: 60_000, ..Limits::default() };
    let Some(shown) = Shown::new("a_stalled_server", port, "", limits).await else { return };
    assert_eq!(shown.names("").await.unwrap(), ["file"]);
    stalled.store(true, Ordering::SeqCst);
    assert_eq!(shown.errno("file").await, Some(110), "reading: ETIMEDOUT");
    assert_eq!(shown.names("").await.unwrap(), ["file"], "what is known still is");
    assert_eq!(shown.errno("other").await, Some(2), "the list that is kept answers");
    assert!(asked.load(Ordering::SeqCst) >= 2);
    shown.end().await.unwrap();
}

/// Who waits for a stalled server can be killed at once, by a signal, while the server's deadline is far away.
#[tokio::test(flavor = "multi_thread")]
async fn who_waits_for_a_stalled_server_can_be_killed() {
    let waiting = Arc::new(tokio::sync::Notify::new());
    let told = Arc::clone(&waiting);
    let play: Play = Arc::new(move |asked| match prefix(asked) {
        Some(prefix) if prefix.is_empty() || prefix == "file" => Some(list(&object("file", 100))),
        Some(_) => Some(list("")),
        None => {
            told.notify_one();
            None
        }
    });
    let port = server(play).await;
    let limits = Limits { operation_ms_max: 600_000, ..Limits::default() };
    let Some(shown) = Shown::new("who_waits_for_a_stalled_server_can_be_killed", port, "", limits).await else {
        return;
    };
    let path = format!(
        "/proc/{}/fd/{}",
        std::process::id(),
        shown.path("").components().nth(4).unwrap().as_os_str().display()
    );
    let mut command = tokio::process::Command::new("cat");
    command.arg(format!("{path}/file"));
    command.as_std_mut().process_group(0);
    let mut reader = command.spawn().unwrap();
    waiting.notified().await;
    reader.start_kill().unwrap();
    let ended = tokio::time::timeout(Duration::from_secs(2), reader.wait()).await;
    assert!(ended.is_ok(), "it hangs on although it was killed");
    shown.kill();
}
