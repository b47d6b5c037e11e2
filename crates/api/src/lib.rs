//! The HTTP contract: wire types, paths, error codes, OpenAPI. No handler.
