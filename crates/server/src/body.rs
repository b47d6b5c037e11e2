//! Bodies: what goes out whole or in pieces, and what comes in, bounded in size and time.

use crate::config::Limits;
use crate::problem::No;
use api::Refusal;
use bytes::{Bytes, BytesMut};
use futures::stream::{BoxStream, StreamExt};
use http_body_util::BodyExt;
use hyper::body::{Frame, Incoming, SizeHint};
use std::convert::Infallible;
use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

/// Bytes in pieces; a stream that breaks is cut, which the other side sees.
pub(crate) type Pieces = BoxStream<'static, Result<Bytes, Cut>>;

/// A body that could not be sent to its end.
#[derive(Debug, thiserror::Error)]
#[error("the body was cut: {0}")]
pub(crate) struct Cut(pub(crate) String);

/// The body of an answer.
pub(crate) enum Body {
    Whole(Option<Bytes>),
    Pieces { pieces: Pieces, bytes: Option<u64> },
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Whole(bytes) => write!(f, "Whole({})", bytes.as_ref().map_or(0, Bytes::len)),
            Self::Pieces { bytes, .. } => write!(f, "Pieces({bytes:?})"),
        }
    }
}

impl From<Bytes> for Body {
    fn from(bytes: Bytes) -> Self {
        Self::Whole((!bytes.is_empty()).then_some(bytes))
    }
}

impl From<String> for Body {
    fn from(text: String) -> Self {
        Bytes::from(text).into()
    }
}

/// Pieces that can't break.
pub(crate) fn endless(pieces: impl futures::Stream<Item = Bytes> + Send + 'static) -> Body {
    Body::Pieces { pieces: pieces.map(Ok).boxed(), bytes: None }
}

impl hyper::body::Body for Body {
    type Data = Bytes;
    type Error = Cut;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Cut>>> {
        match self.get_mut() {
            Self::Whole(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Self::Pieces { pieces, .. } => {
                pieces.poll_next_unpin(context).map(|piece| piece.map(|piece| piece.map(Frame::data)))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Self::Whole(None))
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64)),
            Self::Pieces { bytes: Some(bytes), .. } => SizeHint::with_exact(*bytes),
            Self::Pieces { bytes: None, .. } => SizeHint::default(),
        }
    }
}

/// Reads a request's body to its end.
pub(crate) async fn read(body: Incoming, limits: &Limits) -> Result<Bytes, No> {
    let bytes_max = limits.request_bytes_max;
    let declared = hyper::body::Body::size_hint(&body).lower();
    if declared > bytes_max as u64 {
        return Err(too_large(bytes_max));
    }
    let reading = tokio::time::timeout(Duration::from_millis(limits.body_ms_max), collect(body, bytes_max));
    reading.await.unwrap_or_else(|_| {
        let message = format!("the body did not arrive within {} ms", limits.body_ms_max);
        Err(No::refused(Refusal::RequestTimeout, &message))
    })
}

async fn collect(mut body: Incoming, bytes_max: usize) -> Result<Bytes, No> {
    let mut whole: Option<BytesMut> = None;
    let mut first = Bytes::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_| No::invalid("the body was cut off"))?;
        let Ok(piece) = frame.into_data() else { continue };
        let length = whole.as_ref().map_or(first.len(), BytesMut::len);
        if length + piece.len() > bytes_max {
            return Err(too_large(bytes_max));
        }
        // A body almost always comes in one piece, which is then taken as it is.
        match &mut whole {
            Some(whole) => whole.extend_from_slice(&piece),
            None if first.is_empty() => first = piece,
            None => {
                let mut both = BytesMut::from(&first[..]);
                both.extend_from_slice(&piece);
                whole = Some(both);
            }
        }
    }
    Ok(whole.map_or(first, BytesMut::freeze))
}

fn too_large(bytes_max: usize) -> No {
    No::refused(Refusal::BodyTooLarge, &format!("the body has more than {bytes_max} bytes"))
}

/// The answer that hyper is given: it never fails, a problem is an answer too.
pub(crate) type Answered = Result<http::Response<Body>, Infallible>;
