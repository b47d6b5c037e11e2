//! How many questions go to one model at once; more wait for their turn, in order.

use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Places at each model, by its alias. Aliases come from declarations, so they are few.
#[derive(Debug)]
pub(crate) struct ModelPlaces {
    each: usize,
    places: Mutex<HashMap<String, Arc<Semaphore>>>,
}

impl ModelPlaces {
    pub(crate) fn new(each: usize) -> Self {
        Self { each, places: Mutex::default() }
    }

    /// Waits for a place; it is free again when what this gives is dropped. `None` never comes: the places are never closed.
    pub(crate) async fn take(&self, alias: &str) -> Option<OwnedSemaphorePermit> {
        let semaphore = {
            let mut places = self.places.lock();
            match places.get(alias) {
                Some(semaphore) => semaphore.clone(),
                None => places.entry(alias.to_owned()).or_insert_with(|| Arc::new(Semaphore::new(self.each))).clone(),
            }
        };
        semaphore.acquire_owned().await.ok()
    }
}
