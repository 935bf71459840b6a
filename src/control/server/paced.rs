//! A connection whose other end has to take what it is sent.
//!
//! What a client does not take stays in memory here, with what it is made of. The
//! clock runs only while something waits to be written.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

/// For how long a client may keep this side waiting that takes less than [`LEAST`]
/// bytes in that time.
const PATIENCE: Duration = Duration::from_secs(30);

/// Enough for the clock to begin anew, in bytes; about 2 KB a second.
const LEAST: usize = 64 * 1024;

pub(super) struct Paced<S> {
    inner: S,
    waits: Option<Waits>,
}

struct Waits {
    until: Pin<Box<Sleep>>,
    /// Bytes since it began.
    taken: usize,
}

impl<S> Paced<S> {
    pub fn new(inner: S) -> Self {
        Self { inner, waits: None }
    }

    fn written(
        &mut self,
        cx: &mut Context<'_>,
        polled: Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        match polled {
            Poll::Pending => self.wait(cx),
            Poll::Ready(Ok(bytes)) => {
                self.waits.take_if(|waits| {
                    waits.taken += bytes;
                    waits.taken >= LEAST
                });
                Poll::Ready(Ok(bytes))
            }
            failed => failed,
        }
    }

    /// Ready when this has taken too long.
    fn wait<T>(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<T>> {
        let waits = self.waits.get_or_insert_with(|| Waits {
            until: Box::pin(sleep(PATIENCE)),
            taken: 0,
        });
        ready!(waits.until.as_mut().poll(cx));
        let why = format!(
            "it took less than {LEAST} bytes in {} s",
            PATIENCE.as_secs()
        );
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, why)))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Paced<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(cx, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Paced<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.inner).poll_write(cx, bytes);
        self.written(cx, polled)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.inner).poll_write_vectored(cx, bytes);
        self.written(cx, polled)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    // Called when all there was is written.
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.inner).poll_flush(cx);
        if polled.is_pending() {
            return self.wait(cx);
        }
        self.waits = None;
        polled
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.inner).poll_shutdown(cx);
        match polled.is_pending() {
            true => self.wait(cx),
            false => polled,
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};
    use tokio::time::{Instant, timeout};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn who_takes_nothing_is_given_up() {
        let (here, there) = duplex(1000);
        let mut here = Paced::new(here);
        let begun = Instant::now();
        let error = here.write_all(&[0; 2000]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert_eq!(begun.elapsed().as_secs(), PATIENCE.as_secs());
        drop(there);
    }

    #[tokio::test(start_paused = true)]
    async fn a_drop_now_and_then_is_not_enough() {
        let (here, mut there) = duplex(1000);
        let mut here = Paced::new(here);
        let drips = tokio::spawn(async move {
            loop {
                sleep(Duration::from_secs(1)).await;
                if there.read_exact(&mut [0; 1000]).await.is_err() {
                    return;
                }
            }
        });
        let begun = Instant::now();
        let error = here.write_all(&vec![0; 1 << 20]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert!(begun.elapsed() < PATIENCE * 2);
        drop(here);
        drips.await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn who_is_slow_and_goes_on_is_waited_for() {
        let (here, mut there) = duplex(1000);
        let mut here = Paced::new(here);
        let reads = tokio::spawn(async move {
            let mut all = 0;
            while let Ok(read @ 1..) = there.read(&mut [0; 4000]).await {
                all += read;
                sleep(Duration::from_millis(200)).await;
            }
            all
        });
        here.write_all(&vec![0; 1 << 20]).await.unwrap();
        here.flush().await.unwrap();
        // Nothing to write is no reason.
        sleep(PATIENCE * 3).await;
        here.write_all(&[0; 5000]).await.unwrap();
        drop(here);
        assert_eq!(
            timeout(PATIENCE, reads).await.unwrap().unwrap(),
            (1 << 20) + 5000
        );
    }
}
