//! Work for the processor, apart from the tasks that wait for objects.

use crate::{Error, Inner, Threads};
use futures::future::BoxFuture;

impl Inner {
    /// Begins it now; the future gives what it came to. One that is dropped does not stop it: it is short.
    pub(crate) fn compute<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> BoxFuture<'static, Result<T, Error>> {
        match self.config.threads {
            Threads::Inline => {
                let done = work();
                Box::pin(std::future::ready(Ok(done)))
            }
            Threads::Blocking => {
                let running = tokio::task::spawn_blocking(work);
                Box::pin(async move { running.await.map_err(|error| Error::BrokenOff(error.to_string())) })
            }
        }
    }
}
