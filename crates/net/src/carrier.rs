//! Who carries requests when it is not sockets: a network of a test's own, in which time and faults are played. The limits of
//! size and time of [`crate::Client`] hold over it as they do over sockets; names are not resolved, and nothing is dialled.

use crate::{Error, Request};
use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use http::HeaderMap;
use std::fmt;
use std::io;

/// Carries requests and answers.
#[async_trait]
pub trait Carrier: Send + Sync + fmt::Debug {
    /// Carries a request there and the beginning of its answer back. Dropping the future gives the exchange up; the other side
    /// may have had the request all the same.
    ///
    /// # Errors
    /// What befell the exchange, as sockets would tell it: [`Error::Resolve`], [`Error::Connect`], [`Error::TimeoutConnect`],
    /// [`Error::Tls`] or [`Error::Broken`].
    async fn carry(&self, request: Request) -> Result<Carried, Error>;
}

/// An answer as it is carried.
pub struct Carried {
    /// The status code.
    pub status: http::StatusCode,
    /// The headers.
    pub headers: HeaderMap,
    /// The body, piece by piece; an error is a connection that broke.
    pub body: BoxStream<'static, io::Result<Bytes>>,
}

impl fmt::Debug for Carried {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Carried").field("status", &self.status).field("headers", &self.headers).finish_non_exhaustive()
    }
}

impl Carried {
    /// The form in which the client reads answers.
    pub(crate) fn into_response(self) -> reqwest::Response {
        let mut response = http::Response::new(reqwest::Body::wrap_stream(self.body));
        *response.status_mut() = self.status;
        *response.headers_mut() = self.headers;
        response.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Client, Method, Origin, Settings, Timeouts, Url};
    use futures::StreamExt;

    /// Answers with the last part of the path's number of bytes, in two pieces; `/never` after a day.
    #[derive(Debug)]
    struct Echo;

    #[async_trait]
    impl Carrier for Echo {
        async fn carry(&self, request: Request) -> Result<Carried, Error> {
            let asked = request.url.path().trim_start_matches('/').to_owned();
            let Ok(length) = asked.parse::<usize>() else {
                tokio::time::sleep(std::time::Duration::from_secs(86_400)).await;
                return Err(Error::Broken { host: asked, message: "too late".into() });
            };
            let piece = || Ok(Bytes::from(vec![b'x'; length / 2]));
            let broken = || Err(io::Error::from(io::ErrorKind::ConnectionReset));
            let pieces = if length == 13 { vec![piece(), broken()] } else { vec![piece(), piece()] };
            let body = futures::stream::iter(pieces).boxed();
            Ok(Carried { status: http::StatusCode::ACCEPTED, headers: HeaderMap::new(), body })
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_client_limits_hold_over_any_network() {
        let client = Client::new(Settings::default()).unwrap().over(std::sync::Arc::new(Echo));
        let ask = async |path: &str| {
            let url = Url::parse(&format!("https://no-such-host.test/{path}")).unwrap();
            let mut request = Request::new(Method::POST, url, Origin::Operator);
            request.response_bytes_max = 100;
            request.timeouts = Timeouts { first_byte_ms: 1_000, idle_ms: 1_000, total_ms: 5_000 };
            let response = client.send(request).await?;
            assert_eq!(response.status(), 202);
            response.bytes().await
        };
        assert_eq!(ask("10").await.unwrap().len(), 10);
        assert_eq!(ask("13").await.unwrap_err().code(), "net_broken");
        assert_eq!(ask("120").await.unwrap_err().code(), "net_too_large");
        assert_eq!(ask("never").await.unwrap_err().code(), "net_timeout_first_byte");
    }
}
