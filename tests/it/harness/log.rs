//! The output of a process, line by line.

use std::io::{BufRead, BufReader, Read};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use super::DEADLINE;

#[derive(Clone)]
pub struct Log {
    lines: Arc<Mutex<Vec<String>>>,
    /// The number of lines; the sender is dropped when the stream ends.
    written: watch::Receiver<usize>,
    stalled: Arc<AtomicBool>,
}

impl Log {
    /// Collects from `stream` until it ends.
    pub fn collect(stream: impl Read + Send + 'static) -> Log {
        let lines = Arc::new(Mutex::new(Vec::new()));
        let (sender, written) = watch::channel(0);
        let stalled = Arc::new(AtomicBool::new(false));
        let log = Log {
            lines: lines.clone(),
            written,
            stalled: stalled.clone(),
        };
        std::thread::spawn(move || {
            let mut stream = BufReader::new(stream);
            let mut line = Vec::new();
            while stream
                .read_until(b'\n', &mut line)
                .is_ok_and(|read| read > 0)
            {
                while stalled.load(Ordering::SeqCst) {
                    std::thread::sleep(super::LOOK);
                }
                let text = String::from_utf8_lossy(&line).trim_end().to_owned();
                line.clear();
                let mut lines = lines.lock().unwrap_or_else(PoisonError::into_inner);
                lines.push(text);
                sender.send_replace(lines.len());
            }
        });
        log
    }

    /// Stops reading from the stream and leaves it open.
    pub fn stall(&self) {
        self.stalled.store(true, Ordering::SeqCst);
    }

    fn lines_so_far(&self) -> MutexGuard<'_, Vec<String>> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn lines(&self) -> Vec<String> {
        self.lines_so_far().clone()
    }

    pub fn text(&self) -> String {
        self.lines_so_far().join("\n")
    }

    /// How many lines there are: a mark for [`Log::wait_after`].
    pub fn mark(&self) -> usize {
        self.lines_so_far().len()
    }

    /// How many lines contain `pattern`.
    pub fn count(&self, pattern: &str) -> usize {
        self.lines_so_far()
            .iter()
            .filter(|line| line.contains(pattern))
            .count()
    }

    /// Waits for a line that contains `pattern`, and returns the first such line.
    pub async fn wait(&self, pattern: &str) -> String {
        self.wait_after(0, pattern).await
    }

    /// The same among the lines from `mark` on.
    pub async fn wait_after(&self, mark: usize, pattern: &str) -> String {
        self.try_wait_after(mark, pattern)
            .await
            .unwrap_or_else(|why| {
                panic!("no line with {pattern:?} {why}; the log:\n{}", self.text());
            })
    }

    /// Waits for the line with which a process says that it is ready.
    pub async fn wait_ready(&self) {
        let ready = self.wait_where(0, |line| line.ends_with("ready")).await;
        ready.unwrap_or_else(|why| panic!("not ready {why}; the log:\n{}", self.text()));
    }

    pub async fn try_wait_after(&self, mark: usize, pattern: &str) -> Result<String, String> {
        self.wait_where(mark, |line| line.contains(pattern)).await
    }

    async fn wait_where(&self, mark: usize, is: impl Fn(&str) -> bool) -> Result<String, String> {
        let mut written = self.written.clone();
        let waiting = async {
            loop {
                written.mark_unchanged();
                let found = self
                    .lines_so_far()
                    .iter()
                    .skip(mark)
                    .find(|line| is(line))
                    .cloned();
                if let Some(line) = found {
                    return Ok(line);
                }
                if written.changed().await.is_err() {
                    return Err("before the log ended".to_owned());
                }
            }
        };
        tokio::time::timeout(DEADLINE, waiting)
            .await
            .unwrap_or_else(|_| Err(format!("within {DEADLINE:?}")))
    }

    /// Waits until the stream ends.
    pub async fn ended(&self) {
        let mut written = self.written.clone();
        super::within("the end of the log", async {
            while written.changed().await.is_ok() {}
        })
        .await;
    }
}
