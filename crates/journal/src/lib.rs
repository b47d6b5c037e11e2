//! The append-only hash-linked log and its contents, with fencing; stores: memory and SQLite.
