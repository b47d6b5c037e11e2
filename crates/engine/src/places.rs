//! How many questions go to one model at once; more wait for their turn, in order.

use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Places at each model, by its alias. Aliases come from declarations, so they are few.
#[derive(Debug, Default)]
pub(crate) struct ModelPlaces(Mutex<HashMap<String, Places>>);

#[derive(Debug)]
struct Places {
    most: u32,
    free: Arc<Semaphore>,
}

impl ModelPlaces {
    /// Waits for a place among `most`; it is free again when what this gives is dropped. `None`: there is no limit. When the
    /// limit is another than before, those that have a place keep it besides the new ones.
    pub(crate) async fn take(&self, alias: &str, most: Option<u32>) -> Option<OwnedSemaphorePermit> {
        let most = most?;
        let free = {
            let mut models = self.0.lock();
            match models.get(alias).filter(|places| places.most == most) {
                Some(places) => places.free.clone(),
                None => {
                    let free = Arc::new(Semaphore::new(usize::try_from(most).unwrap_or(Semaphore::MAX_PERMITS)));
                    models.insert(alias.to_owned(), Places { most, free: free.clone() });
                    free
                }
            }
        };
        free.acquire_owned().await.ok()
    }
}
