//! Carries `object_store`'s requests over `net`, which alone opens sockets outward.

use async_trait::async_trait;
use futures::stream;
use http_body_util::{BodyExt, StreamBody};
use net::{Client, Origin, Request, Timeouts};
use object_store::ClientOptions;
use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpResponse, HttpResponseBody, HttpService,
};

const TIMEOUTS: Timeouts = Timeouts { first_byte_ms: 30_000, idle_ms: 30_000, total_ms: 900_000 };

/// Makes clients over one [`Client`].
#[derive(Clone, Debug)]
pub(crate) struct Connector(pub(crate) Client);

impl HttpConnector for Connector {
    fn connect(&self, _options: &ClientOptions) -> object_store::Result<HttpClient> {
        Ok(HttpClient::new(self.clone()))
    }
}

#[async_trait]
impl HttpService for Connector {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let (head, body) = request.into_parts();
        let url =
            net::Url::parse(&head.uri.to_string()).map_err(|error| HttpError::new(HttpErrorKind::Unknown, error))?;
        // The endpoint is the operator's own words.
        let mut outward = Request::new(head.method, url, Origin::Operator);
        outward.headers = head.headers;
        outward.body = body.collect().await?.to_bytes();
        outward.timeouts = TIMEOUTS;
        outward.response_bytes_max = crate::STREAM_BYTES_MAX + (1 << 20);
        let answer = self.0.send(outward).await.map_err(failed)?;
        let mut response = http::Response::builder().status(answer.status());
        if let Some(headers) = response.headers_mut() {
            headers.clone_from(answer.headers());
        }
        let pieces = stream::try_unfold(answer, |mut answer| async move {
            let piece = answer.chunk().await.map_err(failed)?;
            Ok::<_, HttpError>(piece.map(|piece| (http_body::Frame::data(piece), answer)))
        });
        response
            .body(HttpResponseBody::new(StreamBody::new(pieces)))
            .map_err(|error| HttpError::new(HttpErrorKind::Unknown, error))
    }
}

/// What may be tried again: a connection that was never made, an answer that never came or broke off.
fn failed(error: net::Error) -> HttpError {
    use net::Error;
    let kind = match &error {
        Error::Resolve { .. } | Error::Connect { .. } | Error::TimeoutConnect { .. } => HttpErrorKind::Connect,
        Error::TimeoutFirstByte { .. } | Error::TimeoutIdle { .. } => HttpErrorKind::Timeout,
        Error::Broken { .. } => HttpErrorKind::Interrupted,
        Error::TimeoutTotal { .. }
        | Error::Settings { .. }
        | Error::BadUrl { .. }
        | Error::AddressRefused { .. }
        | Error::Tls { .. }
        | Error::TooLarge { .. }
        | Error::RedirectRefused { .. } => HttpErrorKind::Unknown,
    };
    HttpError::new(kind, error)
}
