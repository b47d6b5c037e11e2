//! Objects and artifacts: a local directory or S3-compatible storage.
