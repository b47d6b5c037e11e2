//! Behaviour 6: output that is no text. What is too much of it is the conformance suite's.

use crate::support::{World, command};
use sandbox::Chunk;
use std::sync::Arc;

pub(crate) async fn output_that_is_no_text(world: Arc<World>) {
    let sandbox = world.sandbox().await;
    let mut process = sandbox
        .start(command(&["/bin/sh", "-c", "head -c 100000 /dev/urandom; printf '\\000\\377\\033]52;c;x\\007'"]))
        .await
        .unwrap();
    let mut bytes = Vec::new();
    while let Chunk::Output(_, chunk) = process.next().await.unwrap() {
        bytes.extend_from_slice(&chunk);
    }
    assert_eq!((bytes.len(), bytes[100_000], bytes[100_001]), (100_011, 0, 255));
    sandbox.close().await;
}
