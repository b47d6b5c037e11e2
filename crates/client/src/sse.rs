//! Reads an event stream as the HTML standard §9.2.6 writes it: bytes in, events out, bounded.

use crate::Error;
use std::collections::VecDeque;

/// Bytes of one line or one event at most.
pub(crate) const EVENT_BYTES_MAX: usize = 16 << 20;

/// An event.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Message {
    /// Its own id; an earlier event's is not repeated.
    pub(crate) id: Option<String>,
    /// Its name; `message` when it has none.
    pub(crate) name: String,
    /// Its data.
    pub(crate) data: String,
}

/// Takes the stream apart.
#[derive(Debug, Default)]
pub(crate) struct Parser {
    line: Vec<u8>,
    after_return: bool,
    begun: bool,
    message: Message,
    has_data: bool,
}

impl Parser {
    /// Whether a whole line has come.
    pub(crate) const fn has_begun(&self) -> bool {
        self.begun
    }

    /// Takes the next bytes and gives the events that they complete.
    pub(crate) fn feed(&mut self, bytes: &[u8], out: &mut VecDeque<Message>) -> Result<(), Error> {
        for &byte in bytes {
            let after_return = std::mem::replace(&mut self.after_return, byte == b'\r');
            match byte {
                b'\n' if after_return => {}
                b'\n' | b'\r' => self.end_line(out)?,
                _ => {
                    self.line.push(byte);
                    bounded(self.line.len())?;
                }
            }
        }
        Ok(())
    }

    fn end_line(&mut self, out: &mut VecDeque<Message>) -> Result<(), Error> {
        let line = std::mem::take(&mut self.line);
        let text = String::from_utf8_lossy(&line);
        // A byte order mark may open the stream.
        let text = if self.begun { &*text } else { text.strip_prefix('\u{feff}').unwrap_or(&text) };
        self.begun = true;
        if text.is_empty() {
            let mut message = std::mem::take(&mut self.message);
            if std::mem::take(&mut self.has_data) {
                if message.name.is_empty() {
                    message.name.push_str("message");
                }
                out.push_back(message);
            }
        } else if !text.starts_with(':') {
            let (field, value) = text.split_once(':').unwrap_or((text, ""));
            self.field(field, value.strip_prefix(' ').unwrap_or(value))?;
        }
        // The buffer is kept for the next line unless this one was huge.
        if line.capacity() <= 64 << 10 {
            self.line = line;
            self.line.clear();
        }
        Ok(())
    }

    fn field(&mut self, field: &str, value: &str) -> Result<(), Error> {
        match field {
            "event" => value.clone_into(&mut self.message.name),
            "id" if !value.contains('\0') => self.message.id = Some(value.to_owned()),
            "data" => {
                if std::mem::replace(&mut self.has_data, true) {
                    self.message.data.push('\n');
                }
                self.message.data.push_str(value);
                bounded(self.message.data.len())?;
            }
            // `retry` and fields to come: the standard says to ignore them.
            _ => {}
        }
        Ok(())
    }
}

fn bounded(bytes: usize) -> Result<(), Error> {
    if bytes > EVENT_BYTES_MAX {
        return Err(Error::TooLarge { what: "an event", bytes_max: EVENT_BYTES_MAX });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Events as `id name data`, with the stream cut into pieces of every length.
    fn check(stream: &str, expected: &[&str]) {
        for step in 1..=stream.len() {
            let (mut parser, mut out) = (Parser::default(), VecDeque::new());
            for piece in stream.as_bytes().chunks(step) {
                parser.feed(piece, &mut out).unwrap();
            }
            let told: Vec<String> = out
                .iter()
                .map(|Message { id, name, data }| format!("{} {name} {data}", id.as_deref().unwrap_or("-")))
                .collect();
            assert_eq!(told, expected, "{stream:?} in pieces of {step}");
        }
    }

    #[test]
    fn events_come_out_however_the_stream_is_cut() {
        check("event: a\nid: 1\ndata: {}\n\n", &["1 a {}"]);
        check("data: x\ndata:y\n\n", &["- message x\ny"]);
        check(": heartbeat\n\n: again\n\ndata:  z\n\n", &["- message  z"]);
        check("id: 1\r\ndata: a\r\n\r\ndata: b\r\r", &["1 message a", "- message b"]);
        check("\u{feff}data: grüße\n\ndata: cut", &["- message grüße"]);
        check("event: a\n\nretry: 5\ndata\n\n", &["- message "]);
    }

    #[test]
    fn an_endless_line_is_refused() {
        let (mut parser, mut out) = (Parser::default(), VecDeque::new());
        let piece = vec![b'x'; 1 << 20];
        let error = (0..=16).find_map(|_| parser.feed(&piece, &mut out).err()).expect("it is refused");
        assert_eq!(error.code(), "client_too_large");
    }
}
