//! Typed HTTP and event-stream client over api.
