//! A stream of server-sent events, read as it comes, bounded in size and in the time between two events. Only `data` matters to
//! the wires: both name their events inside it.

use crate::{Failure, Kind, Stage};
use bytes::{Buf, BytesMut};
use std::time::Duration;

/// Bytes of one event at most; the last event of a reply repeats the whole of it.
const EVENT_BYTES_MAX: usize = 32 * 1024 * 1024;

/// The events of a response.
#[derive(Debug)]
pub(crate) struct Events {
    response: net::Response,
    parser: Parser,
    first_ms: u64,
    idle_ms: u64,
    begun: bool,
}

impl Events {
    /// Reads events from a response; `waits` are the limits before the first event and between two, in milliseconds.
    pub(crate) fn new(response: net::Response, waits: (u64, u64)) -> Self {
        Self { response, parser: Parser::default(), first_ms: waits.0, idle_ms: waits.1, begun: false }
    }

    /// The data of the next event; `None` at the end of the stream. Comments, which endpoints send to keep the connection
    /// alive, do not count as life: the model is silent all the same.
    pub(crate) async fn next(&mut self) -> Result<Option<String>, Failure> {
        if let Some(data) = self.parser.next()? {
            self.begun = true;
            return Ok(Some(data));
        }
        let (ms, stage) = if self.begun { (self.idle_ms, Stage::Idle) } else { (self.first_ms, Stage::FirstToken) };
        let read = tokio::time::timeout(Duration::from_millis(ms), self.read()).await;
        let silent = |_| Failure::new(Kind::Timeout { stage }, format!("the model sent no event for {ms} ms"));
        let data = read.map_err(silent)??;
        self.begun = true;
        Ok(data)
    }

    async fn read(&mut self) -> Result<Option<String>, Failure> {
        loop {
            match self.response.chunk().await? {
                Some(piece) => self.parser.push(&piece),
                None => return self.parser.end(),
            }
            if let Some(data) = self.parser.next()? {
                return Ok(Some(data));
            }
        }
    }

    /// Gives the connection back after the last event that matters.
    pub(crate) async fn finish(self) {
        self.response.finish().await;
    }
}

/// Takes bytes in any portions and gives the data of events.
#[derive(Debug, Default)]
struct Parser {
    buffer: BytesMut,
    /// Bytes at the front of `buffer` known to hold no line end.
    scanned: usize,
    /// The data lines of the event that is not finished.
    data: Vec<u8>,
    has_data: bool,
}

impl Parser {
    fn push(&mut self, piece: &[u8]) {
        self.buffer.extend_from_slice(piece);
    }

    /// The next whole event.
    fn next(&mut self) -> Result<Option<String>, Failure> {
        while let Some(at) = self.buffer[self.scanned..].iter().position(|&byte| byte == b'\n') {
            let line = self.buffer.split_to(self.scanned + at);
            self.buffer.advance(1);
            self.scanned = 0;
            if let Some(data) = self.line(line.strip_suffix(b"\r").unwrap_or(&line))? {
                return Ok(Some(data));
            }
        }
        self.scanned = self.buffer.len();
        if self.buffer.len() + self.data.len() > EVENT_BYTES_MAX {
            let message = format!("the model's endpoint sent an event of more than {EVENT_BYTES_MAX} bytes");
            return Err(Failure::new(Kind::Malformed, message).finally());
        }
        Ok(None)
    }

    /// What is left when the stream ends: some endpoints leave out the last empty line.
    fn end(&mut self) -> Result<Option<String>, Failure> {
        let line = self.buffer.split();
        self.scanned = 0;
        match self.line(&line)? {
            Some(data) => Ok(Some(data)),
            None => self.line(b""),
        }
    }

    fn line(&mut self, line: &[u8]) -> Result<Option<String>, Failure> {
        if line.is_empty() {
            if !std::mem::take(&mut self.has_data) {
                return Ok(None);
            }
            let data = String::from_utf8(std::mem::take(&mut self.data))
                .map_err(|_| Failure::new(Kind::Malformed, "the model's endpoint sent an event that is not UTF-8"))?;
            return Ok(Some(data));
        }
        if let Some(value) = line.strip_prefix(b"data:") {
            if std::mem::replace(&mut self.has_data, true) {
                self.data.push(b'\n');
            }
            self.data.extend_from_slice(value.strip_prefix(b" ").unwrap_or(value));
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(pieces: &[&[u8]]) -> Vec<String> {
        let (mut parser, mut events) = (Parser::default(), Vec::new());
        for piece in pieces {
            parser.push(piece);
            while let Some(data) = parser.next().unwrap() {
                events.push(data);
            }
        }
        while let Some(data) = parser.end().unwrap() {
            events.push(data);
        }
        events
    }

    #[test]
    fn events_are_the_same_however_the_bytes_arrive() {
        let text = ": ping\r\nevent: a\r\ndata: {\"x\":1}\r\n\r\n\
            data:two\ndata: lines\nid: 7\n\nretry: 1\n\ndata: ü\n\ndata: last"
            .as_bytes();
        let expected = ["{\"x\":1}", "two\nlines", "ü", "last"];
        assert_eq!(read(&[text]), expected);
        for at in 0..=text.len() {
            assert_eq!(read(&[&text[..at], &text[at..]]), expected, "split at {at}");
        }
        let bytes: Vec<&[u8]> = text.chunks(1).collect();
        assert_eq!(read(&bytes), expected);
        assert_eq!(read(&[b"", b"\n\n\n"]), Vec::<String>::new());
    }
}
