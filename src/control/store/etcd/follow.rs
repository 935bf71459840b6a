//! Waiting for what other control planes add.

use std::time::Duration;

use etcd_client::{Error, WatchStream};
use tokio::time::{sleep, timeout};

use super::Etcd;
use super::members::Trouble;

/// A watch may fall silent without a word: it is not trusted for longer.
const LOOK: Duration = Duration::from_secs(3);

/// The time until the next try when etcd is away: any up to this.
const PAUSE: Duration = Duration::from_secs(2);

/// A watch on the head.
pub(super) struct Watch(WatchStream);

impl Etcd {
    /// Returns when the head is not that of `after`, or may not be: also after a
    /// while of not knowing, for someone to hear of it.
    pub(super) async fn changed(&self, after: u64) {
        // Whoever waits at the same time has no use for the watch of another.
        let mut kept = self.watch.lock().await;
        let mut silent = false;
        loop {
            // Before each look, so that nothing is between it and the look.
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
            // One that should have told of it is of no use.
            let missed = silent && newest != after;
            *kept = watch.ok().filter(|_| !missed);
            if newest != after {
                return;
            }
            let Some(watch) = &mut *kept else {
                pause().await;
                continue;
            };
            // What it tells of may be our own, so that there is another look.
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
    /// Whether there was an event; false: there will be none any more, as it was
    /// canceled or compacted, or its member is gone.
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
