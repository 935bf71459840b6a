//! Waiting for generations that other control planes add.

use std::time::Duration;

use etcd_client::{Error, WatchStream};
use tokio::time::{sleep, timeout};

use super::Etcd;
use super::members::Trouble;

/// How long a watch may be silent before the head is read: watches can fail without an
/// error.
const LOOK: Duration = Duration::from_secs(3);

/// The longest time between attempts while etcd cannot be reached; random below it.
const PAUSE: Duration = Duration::from_secs(2);

/// A watch on the head.
pub(super) struct Watch(WatchStream);

impl Etcd {
    /// Returns when the head is not `after`. Also returns if the head cannot be read, so
    /// that the caller reports the error.
    pub(super) async fn changed(&self, after: u64) {
        // Concurrent callers wait in turn.
        let mut kept = self.watch.lock().await;
        let mut silent = false;
        loop {
            // Started before the head is read, so that no change in between is missed.
            let watch = match kept.take() {
                Some(watch) => Ok(watch),
                None => self.watch().await,
            };
            let newest = match self.head().await {
                Ok(head) => head.map_or(0, |(record, _)| record.generation),
                Err(_) => {
                    pause().await;
                    return;
                }
            };
            // A watch that missed a change is replaced.
            let missed = silent && newest != after;
            *kept = watch.ok().filter(|_| !missed);
            if newest != after {
                return;
            }
            let Some(watch) = &mut *kept else {
                pause().await;
                continue;
            };
            // The event may be our own commit: the head is read again.
            let event = timeout(LOOK, watch.event()).await;
            silent = event.is_err();
            if let Ok(false) = event {
                *kept = None;
            }
        }
    }

    async fn watch(&self) -> Result<Watch, Trouble> {
        let key = self.keys.head();
        let watch = self.members.ask(|client| {
            let key = key.clone();
            async move {
                let mut stream = client.watch_client().watch(key, None).await?;
                match stream.message().await? {
                    Some(first) if first.created() && !first.canceled() => Ok(Watch(stream)),
                    _ => Err(Error::WatchError("refused".to_owned())),
                }
            }
        });
        watch.await
    }
}

impl Watch {
    /// Waits for an event. False: the watch ended, because it was canceled or compacted, or
    /// its member is gone.
    async fn event(&mut self) -> bool {
        loop {
            match self.0.message().await {
                Ok(Some(message)) if message.canceled() => return false,
                Ok(Some(message)) if message.events().is_empty() => {}
                Ok(Some(_)) => return true,
                Ok(None) | Err(_) => return false,
            }
        }
    }
}

async fn pause() {
    sleep(rand::random_range(PAUSE / 4..=PAUSE)).await;
}
