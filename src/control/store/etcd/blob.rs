//! Contents that are too large for one value, in pieces.
//!
//! Pieces are produced while earlier ones are written, and consumed while later ones are
//! read, so that only a few are in memory.

use std::io::{self, Read, Write};

use etcd_client::{DeleteOptions, GetOptions, Txn, TxnOp, TxnOpResponse};
use tokio::sync::mpsc;

use super::Etcd;
use super::keys::BlobId;
use super::load::LoadError;
use super::members::Trouble;
use super::value::BlobName;
use crate::control::store::StoreError;

/// The largest piece, in bytes. By default, etcd accepts requests of up to 1.5 MiB.
const PIECE_BYTES: usize = 512 << 10;

/// How many pieces one request reads.
const PAGE: i64 = 8;

/// How many pieces are buffered.
const AHEAD: usize = 2;

/// A blob that was written and is not named yet.
#[derive(Clone, Debug)]
pub(super) struct Written {
    pub name: BlobName,
    /// The revision that created its first piece. All pieces are deleted together, so while
    /// the first has this revision, all of them exist.
    pub made: i64,
}

/// Why a blob was not written.
#[derive(Debug)]
pub(super) enum WriteError {
    /// No member stored it.
    Trouble(Trouble),
    /// Its content could not be produced.
    Failed(StoreError),
}

impl From<WriteError> for StoreError {
    fn from(error: WriteError) -> Self {
        match error {
            WriteError::Trouble(trouble) => trouble.into(),
            WriteError::Failed(error) => error,
        }
    }
}

impl Etcd {
    /// Writes a blob of what `produce` writes, which runs on a thread that may block. Nothing
    /// reads it before a commit or base names it.
    ///
    /// # Errors
    /// Not all of it was written. What was written is deleted now, or later by the upkeep.
    pub(super) async fn write_blob(
        &self,
        id: &BlobId,
        produce: impl FnOnce(&mut dyn Write) -> io::Result<()> + Send + 'static,
    ) -> Result<Written, StoreError> {
        let written = self.try_write_blob(id, produce).await;
        if written.is_err() {
            self.delete_blob(&id.text).await;
        }
        Ok(written?)
    }

    async fn try_write_blob(
        &self,
        id: &BlobId,
        produce: impl FnOnce(&mut dyn Write) -> io::Result<()> + Send + 'static,
    ) -> Result<Written, WriteError> {
        let (to, mut pieces) = mpsc::channel::<Vec<u8>>(AHEAD);
        let task = tokio::task::spawn_blocking(move || {
            let mut out = Pieces {
                to,
                piece: Vec::with_capacity(PIECE_BYTES),
            };
            produce(&mut out)?;
            out.finish()
        });
        let mut name = BlobName {
            id: id.text.clone(),
            pieces: 0,
            bytes: 0,
        };
        let mut made = None;
        while let Some(piece) = pieces.recv().await {
            let key = self.keys.piece(&id.text, name.pieces);
            name.pieces += 1;
            name.bytes += piece.len() as u64;
            // Sent more than once, it writes the same bytes under the same key.
            let gets = match made {
                None => vec![TxnOp::get(key.clone(), None)],
                Some(_) => Vec::new(),
            };
            let put = Txn::new().and_then([vec![TxnOp::put(key, piece, None)], gets].concat());
            let put = self.members.ask(|client| {
                let put = put.clone();
                async move { client.kv_client().txn(put).await }
            });
            let answer = put.await.map_err(WriteError::Trouble)?;
            made = made.or_else(|| created(answer.op_responses()));
        }
        let failed = |error: &dyn std::fmt::Display| {
            WriteError::Failed(StoreError(format!("cannot produce the content: {error}")))
        };
        match task.await {
            Ok(Ok(())) => Ok(Written {
                name,
                made: made.unwrap_or_default(),
            }),
            Ok(Err(error)) => Err(failed(&error)),
            Err(error) => Err(failed(&error)),
        }
    }

    /// Deletes a blob that nothing names or will name. If that fails, the upkeep deletes it
    /// later.
    pub(super) async fn delete_blob(&self, id: &str) {
        let range = self.keys.pieces(id, 0);
        let deleted = self.members.ask(|client| {
            let range = range.clone();
            let options = DeleteOptions::new().with_range(range.end);
            async move { client.kv_client().delete(range.start, Some(options)).await }
        });
        if let Err(trouble) = deleted.await {
            log::debug!(target: "cellgate::control", "{trouble}");
        }
    }

    /// Reads a blob by `consume`, which runs on a thread that may block.
    ///
    /// # Errors
    /// It was deleted, or `consume` refuses it.
    pub(super) async fn read_blob<T: Send + 'static>(
        &self,
        name: &BlobName,
        consume: impl FnOnce(&mut dyn Read) -> Result<T, String> + Send + 'static,
    ) -> Result<T, LoadError> {
        let (to, from) = mpsc::channel::<Vec<u8>>(AHEAD);
        let task = tokio::task::spawn_blocking(move || {
            consume(&mut Stream {
                from,
                piece: Vec::new(),
                read: 0,
            })
        });
        let sent = self.send_pieces(name, &to).await;
        drop(to);
        let read = task.await;
        sent?;
        let broken = |why: &dyn std::fmt::Display| {
            let id = name.id.escape_debug();
            LoadError::Store(StoreError(format!("etcd: blob {id}: {why}")))
        };
        match read {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(why)) => Err(broken(&why)),
            Err(error) => Err(broken(&error)),
        }
    }

    /// Sends the pieces of a blob to the reader. Ends early if the reader does.
    async fn send_pieces(
        &self,
        name: &BlobName,
        to: &mpsc::Sender<Vec<u8>>,
    ) -> Result<(), LoadError> {
        let mut next = 0;
        while next < name.pieces {
            let range = self.keys.pieces(&name.id, next);
            let options = GetOptions::new().with_range(range.end).with_limit(PAGE);
            let page = self.get(range.start, options).await?;
            if page.is_empty() {
                return Err(LoadError::Gone);
            }
            for piece in page {
                if self.keys.piece_index(piece.key()) != Some(next) {
                    return Err(LoadError::Gone);
                }
                next += 1;
                if to.send(piece.into_key_value().1).await.is_err() {
                    return Ok(());
                }
            }
        }
        Ok(())
    }
}

/// The revision that created the key that was read.
fn created(responses: Vec<TxnOpResponse>) -> Option<i64> {
    responses.into_iter().find_map(|response| match response {
        TxnOpResponse::Get(found) => found.kvs().first().map(|found| found.create_revision()),
        _ => None,
    })
}

/// Sends what is written in pieces.
struct Pieces {
    to: mpsc::Sender<Vec<u8>>,
    piece: Vec<u8>,
}

impl Pieces {
    fn send(&mut self) -> io::Result<()> {
        let piece = std::mem::replace(&mut self.piece, Vec::with_capacity(PIECE_BYTES));
        let gone = |_| io::Error::from(io::ErrorKind::BrokenPipe);
        self.to.blocking_send(piece).map_err(gone)
    }

    fn finish(mut self) -> io::Result<()> {
        match self.piece.is_empty() {
            true => Ok(()),
            false => self.send(),
        }
    }
}

impl Write for Pieces {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let room = PIECE_BYTES - self.piece.len();
        let (now, _) = bytes.split_at(bytes.len().min(room));
        self.piece.extend_from_slice(now);
        if self.piece.len() == PIECE_BYTES {
            self.send()?;
        }
        Ok(now.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Reads pieces as one stream.
struct Stream {
    from: mpsc::Receiver<Vec<u8>>,
    piece: Vec<u8>,
    /// How much of the piece was read.
    read: usize,
}

impl Read for Stream {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        while self.read == self.piece.len() {
            match self.from.blocking_recv() {
                Some(piece) => (self.piece, self.read) = (piece, 0),
                None => return Ok(0),
            }
        }
        let mut left = self.piece.get(self.read..).unwrap_or_default();
        let bytes = left.read(out)?;
        self.read += bytes;
        Ok(bytes)
    }
}
