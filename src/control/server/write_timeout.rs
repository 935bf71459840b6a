//! A stream that fails when its peer reads too slowly.
//!
//! What a peer does not read stays in memory here. The clock runs only while a write is blocked.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

/// How long a blocked peer may take for each [`MIN_PROGRESS`] bytes.
const PROGRESS_TIMEOUT: Duration = Duration::from_secs(30);

/// In bytes; about 2 KB a second.
const MIN_PROGRESS: usize = 64 * 1024;

pub(super) struct WriteTimeout<S> {
    inner: S,
    blocked: Option<Blocked>,
}

struct Blocked {
    deadline: Pin<Box<Sleep>>,
    /// Bytes that the peer has read since then.
    written: usize,
}

impl<S> WriteTimeout<S> {
    pub fn new(inner: S) -> Self {
        Self {
            inner,
            blocked: None,
        }
    }

    fn written(
        &mut self,
        cx: &mut Context<'_>,
        polled: Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        match polled {
            Poll::Pending => self.wait(cx),
            Poll::Ready(Ok(bytes)) => {
                self.blocked.take_if(|blocked| {
                    blocked.written += bytes;
                    blocked.written >= MIN_PROGRESS
                });
                Poll::Ready(Ok(bytes))
            }
            failed => failed,
        }
    }

    /// Ready when the peer has been too slow.
    fn wait<T>(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<T>> {
        let blocked = self.blocked.get_or_insert_with(|| Blocked {
            deadline: Box::pin(sleep(PROGRESS_TIMEOUT)),
            written: 0,
        });
        ready!(blocked.deadline.as_mut().poll(cx));
        let why = format!(
            "the peer read less than {MIN_PROGRESS} bytes in {} s",
            PROGRESS_TIMEOUT.as_secs()
        );
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, why)))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for WriteTimeout<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(cx, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for WriteTimeout<S> {
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

    // Called when everything is written.
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.inner).poll_flush(cx);
        if polled.is_pending() {
            return self.wait(cx);
        }
        self.blocked = None;
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
    async fn a_peer_that_reads_nothing_fails() {
        let (here, there) = duplex(1000);
        let mut here = WriteTimeout::new(here);
        let begun = Instant::now();
        let error = here.write_all(&[0; 2000]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert_eq!(begun.elapsed().as_secs(), PROGRESS_TIMEOUT.as_secs());
        drop(there);
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_reads_too_slowly_fails() {
        let (here, mut there) = duplex(1000);
        let mut here = WriteTimeout::new(here);
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
        assert!(begun.elapsed() < PROGRESS_TIMEOUT * 2);
        drop(here);
        drips.await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_peer_with_progress_does_not_fail() {
        let (here, mut there) = duplex(1000);
        let mut here = WriteTimeout::new(here);
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
        // An idle connection does not fail.
        sleep(PROGRESS_TIMEOUT * 3).await;
        here.write_all(&[0; 5000]).await.unwrap();
        drop(here);
        assert_eq!(
            timeout(PROGRESS_TIMEOUT, reads).await.unwrap().unwrap(),
            (1 << 20) + 5000
        );
    }
}
