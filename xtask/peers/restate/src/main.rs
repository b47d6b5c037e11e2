//! A peer of the benchmarks: one object of Restate whose handler takes a number of durable steps, one after the other, each
//! of which does nothing: `peer-restate ADDRESS`. What is measured and how, `cargo xtask bench` says.

use restate_sdk::prelude::*;

struct Steps;

#[object]
impl Steps {
    /// Takes the steps; answers how many.
    #[handler]
    async fn take(&self, ctx: ObjectContext<'_>, steps: u64) -> Result<u64, TerminalError> {
        let mut taken = 0;
        for _ in 0..steps {
            taken += ctx.run(|| async { Ok(1_u64) }).name("step").await?;
        }
        Ok(taken)
    }
}

#[tokio::main]
async fn main() -> Result<(), std::net::AddrParseError> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:9080".to_owned()).parse()?;
    HttpServer::new(Endpoint::builder().bind(Steps).build()).listen_and_serve(address).await;
    Ok(())
}
