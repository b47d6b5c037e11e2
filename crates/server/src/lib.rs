//! HTTP handlers, authentication, event streams, docs.
