//! What the services have in common that stand outside and that tools call: they listen on loopback and read requests. What they
//! note and when they answer is their own.

use std::io::{BufRead, BufReader, Read};
use std::net::{TcpListener, TcpStream};

/// How long a test waits for something that must come.
pub(crate) const WAIT_MS_MAX: u64 = 60_000;
/// Bytes of a body at most.
const BODY_BYTES_MAX: usize = 1 << 20;

/// A model that calls the tool `pay` once, and says what it was told.
pub(crate) const PAY: &str = r#"title: pay
steps:
- expect: {user: 'Pay'}
  reply:
  - call: {id: pay, tool: pay, arguments: {text: ten}}
- expect: {outputs: {pay: '(?s)(?<answer>.*)'}}
  reply:
  - text: "${answer}"
"#;

/// Listens on a free port, a thread for each connection; gives the URL.
pub(crate) fn listen(serve: impl Fn(TcpStream) + Clone + Send + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let serve = serve.clone();
            // Who asked may have died meanwhile.
            std::thread::spawn(move || serve(stream));
        }
    });
    url
}

/// The declaration of a tool that posts its argument `text` to a URL.
pub(crate) fn tool(url: &str, more: &str) -> String {
    format!(
        "description: Tells somebody.\ninput_schema: {{type: object, properties: {{text: {{type: string}}}}, required: [text]}}\neffect: external\n{more}run: {{http: {{method: POST, url: \"{url}\", body: [text]}}}}\n"
    )
}

pub(crate) struct Request {
    pub(crate) path: String,
    pub(crate) body: String,
    /// Its idempotency key.
    pub(crate) key: Option<String>,
}

/// Reads a request; `None` at the end.
pub(crate) fn request(reader: &mut BufReader<TcpStream>) -> Option<Request> {
    let mut line = String::new();
    let (mut path, mut key, mut length) = (None, None, 0);
    loop {
        line.clear();
        match reader.read_line(&mut line) {
            Ok(0) => return None,
            Ok(_) => {}
            // The pause of a held request: nothing has come yet.
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => continue,
            Err(_) => return None,
        }
        let text = line.trim_end();
        if path.is_none() {
            path = text.split(' ').nth(1).map(str::to_owned);
        } else if text.is_empty() {
            break;
        } else if let Some((name, value)) = text.split_once(':') {
            let value = value.trim();
            match name.to_ascii_lowercase().as_str() {
                "content-length" => length = value.parse().ok().filter(|length| *length <= BODY_BYTES_MAX)?,
                "idempotency-key" => key = Some(value.to_owned()),
                _ => {}
            }
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    Some(Request { path: path?, body: String::from_utf8_lossy(&body).into_owned(), key })
}
