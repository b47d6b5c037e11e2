//! The only way out of the harness: canonical hosts, address classes, vetted dials, proxy and CA settings.
//! What is said over a connection is the caller's; no other room opens a socket outward.

pub mod address;
mod carrier;
mod client;
mod error;
pub mod host;
mod lookup;
mod request;
mod response;
mod settings;
mod trust;

pub use address::Class;
pub use carrier::{Carried, Carrier};
pub use client::{Client, Duplex, Upgraded};
pub use error::Error;
pub use lookup::{Lookup, SystemLookup};
pub use request::{Origin, Request, Timeouts};
pub use response::Response;
pub use settings::{Network, Settings};
pub use trust::tls;

pub use bytes::Bytes;
pub use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
pub use url::Url;
