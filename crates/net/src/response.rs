//! An answer as it comes in: bounded in size, bounded in time between two pieces.

use crate::client::failed;
use crate::{Error, Timeouts};
use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use std::time::Duration;
use tokio::time::{Instant, timeout_at};

/// Bytes and time spent on the unread rest of an answer so that its connection can be used again.
const DRAIN_BYTES_MAX: usize = 16 * 1024;
const DRAIN_MS_MAX: u64 = 200;

/// An answer whose body is still to be read. Dropping it ends the exchange.
#[derive(Debug)]
pub struct Response {
    pub(crate) inner: reqwest::Response,
    pub(crate) host: String,
    pub(crate) timeouts: Timeouts,
    pub(crate) first_byte_by: Instant,
    pub(crate) total_by: Instant,
    pub(crate) bytes_max: u64,
    pub(crate) bytes_left: u64,
    pub(crate) begun: bool,
}

impl Response {
    /// The status code.
    pub fn status(&self) -> u16 {
        self.inner.status().as_u16()
    }

    /// The headers.
    pub fn headers(&self) -> &HeaderMap {
        self.inner.headers()
    }

    /// The value of a header, when there is one and it is text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.inner.headers().get(name)?.to_str().ok()
    }

    /// The next piece of the body; `None` at its end.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, Error> {
        let step_by =
            if self.begun { Instant::now() + Duration::from_millis(self.timeouts.idle_ms) } else { self.first_byte_by };
        let host = || self.host.clone();
        let piece = match timeout_at(step_by.min(self.total_by), self.inner.chunk()).await {
            Ok(Ok(piece)) => piece,
            Ok(Err(error)) => return Err(failed(error, &self.host, 0)),
            Err(_) if self.total_by <= step_by => {
                return Err(Error::TimeoutTotal { host: host(), ms: self.timeouts.total_ms });
            }
            Err(_) if self.begun => return Err(Error::TimeoutIdle { host: host(), ms: self.timeouts.idle_ms }),
            Err(_) => return Err(Error::TimeoutFirstByte { host: host(), ms: self.timeouts.first_byte_ms }),
        };
        self.begun = true;
        if let Some(piece) = &piece {
            let length = u64::try_from(piece.len()).unwrap_or(u64::MAX);
            self.bytes_left = self
                .bytes_left
                .checked_sub(length)
                .ok_or_else(|| Error::TooLarge { host: host(), bytes_max: self.bytes_max })?;
        }
        Ok(piece)
    }

    /// The whole body.
    pub async fn bytes(mut self) -> Result<Bytes, Error> {
        let Some(first) = self.chunk().await? else { return Ok(Bytes::new()) };
        let Some(second) = self.chunk().await? else { return Ok(first) };
        let mut whole = BytesMut::from(&first[..]);
        whole.extend_from_slice(&second);
        while let Some(piece) = self.chunk().await? {
            whole.extend_from_slice(&piece);
        }
        Ok(whole.freeze())
    }

    /// The beginning of the body, as far as it came: for error answers, whose end matters less than their being bounded.
    pub async fn beginning(mut self, bytes_max: usize) -> Bytes {
        let mut read = BytesMut::new();
        while read.len() < bytes_max
            && let Ok(Some(piece)) = self.chunk().await
        {
            read.extend_from_slice(&piece[..piece.len().min(bytes_max - read.len())]);
        }
        read.freeze()
    }

    /// Reads what little may be left, so that the connection goes back to the pool instead of being closed.
    pub async fn finish(mut self) {
        let by = Instant::now() + Duration::from_millis(DRAIN_MS_MAX);
        let mut left = DRAIN_BYTES_MAX;
        while let Ok(Ok(Some(piece))) = timeout_at(by, self.inner.chunk()).await {
            match left.checked_sub(piece.len()) {
                Some(rest) => left = rest,
                None => return,
            }
        }
    }
}
