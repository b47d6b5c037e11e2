//! Behaviour 37: names that are attacks on whoever shows or stores them.

use crate::support::{World, path, sh};
use std::sync::Arc;

pub(crate) async fn names_that_are_attacks(world: Arc<World>) {
    let sandbox = world.sandbox().await;
    let script = "touch -- 'a
b' \"$(printf 'esc\\033[2J')\" \"$(printf 'bad\\377')\" ' ' '-rf' '.topside-mirror' \"$(printf '%0255d' 0)\"; \
        mkdir -p $(printf 'd/%.0s' $(seq 1 300)); echo done";
    assert_eq!(sh(&sandbox, script).await.out, "done\n");
    let listed = sandbox.list(&path("."), 100).await.unwrap();
    assert_eq!(listed.len(), 8, "{listed:?}");
    let changed = sandbox.changed(1_000).await.unwrap();
    assert!((200..=320).contains(&changed.len()), "{}", changed.len());
    sandbox.close().await;
}
