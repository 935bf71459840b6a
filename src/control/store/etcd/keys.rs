//! The names of keys.

use std::ops::Range;

/// The names below one prefix.
pub(super) struct Keys {
    /// Ends with `/`, unless it is empty.
    prefix: String,
}

/// The kinds of values of a generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Commit,
    Base,
}

impl Kind {
    fn folder(self) -> &'static str {
        match self {
            Self::Commit => "commits/",
            Self::Base => "bases/",
        }
    }

    /// The letter in the id of a blob that a value of this kind names.
    fn letter(self) -> char {
        match self {
            Self::Commit => 'c',
            Self::Base => 'b',
        }
    }
}

/// The id of a blob.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct BlobId {
    /// The generation that it belongs to.
    pub generation: u64,
    /// The kind of value that names it, or would.
    pub kind: Kind,
    pub text: String,
}

impl BlobId {
    /// A new id, unique by chance.
    pub fn new(generation: u64, kind: Kind) -> Self {
        let (letter, random) = (kind.letter(), rand::random::<u128>());
        Self {
            generation,
            kind,
            text: format!("{generation:020}-{letter}-{random:032x}"),
        }
    }

    fn parse(text: &str) -> Option<Self> {
        let mut parts = text.splitn(3, '-');
        let generation = parts.next()?.parse().ok()?;
        let kind = match parts.next()? {
            "c" => Kind::Commit,
            "b" => Kind::Base,
            _ => return None,
        };
        Some(Self {
            generation,
            kind,
            text: text.to_owned(),
        })
    }
}

impl Keys {
    pub fn new(prefix: &str) -> Self {
        let prefix = prefix.trim_end_matches('/');
        let slash = if prefix.is_empty() { "" } else { "/" };
        Self {
            prefix: format!("{prefix}{slash}"),
        }
    }

    /// The prefix of all keys.
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    pub fn head(&self) -> String {
        format!("{}head", self.prefix)
    }

    /// The key that the process holds which does the upkeep.
    pub fn upkeep(&self) -> String {
        format!("{}upkeep", self.prefix)
    }

    pub fn of(&self, kind: Kind, generation: u64) -> String {
        format!("{}{}{generation:020}", self.prefix, kind.folder())
    }

    /// The keys of a range of generations.
    pub fn range(&self, kind: Kind, generations: Range<u64>) -> Range<String> {
        self.of(kind, generations.start)..self.of(kind, generations.end)
    }

    /// The generation of a key of this kind.
    pub fn generation(&self, kind: Kind, key: &[u8]) -> Option<u64> {
        let key = std::str::from_utf8(key).ok()?;
        let rest = key.strip_prefix(&self.prefix)?;
        rest.strip_prefix(kind.folder())?.parse().ok()
    }

    /// The key of a piece of a blob.
    pub fn piece(&self, id: &str, index: u32) -> String {
        format!("{}blobs/{id}/{index:010}", self.prefix)
    }

    /// The keys of all pieces of a blob from `from` on.
    pub fn pieces(&self, id: &str, from: u32) -> Range<String> {
        self.piece(id, from)..self.after_blob(id)
    }

    /// The first key after all pieces of this blob: `0` follows `/` in ASCII.
    pub fn after_blob(&self, id: &str) -> String {
        format!("{}blobs/{id}0", self.prefix)
    }

    /// The keys of all blobs of generations below `generation`.
    pub fn blobs_below(&self, generation: u64) -> Range<String> {
        format!("{}blobs/", self.prefix)..format!("{}blobs/{generation:020}", self.prefix)
    }

    /// The first key after all blobs.
    pub fn blobs_end(&self) -> String {
        format!("{}blobs0", self.prefix)
    }

    /// The id of the blob that a key is a piece of.
    pub fn blob_of(&self, key: &[u8]) -> Option<BlobId> {
        let key = std::str::from_utf8(key).ok()?;
        let rest = key.strip_prefix(&self.prefix)?.strip_prefix("blobs/")?;
        BlobId::parse(rest.split('/').next()?)
    }

    /// The index of the piece that a key is.
    pub fn piece_index(&self, key: &[u8]) -> Option<u32> {
        let key = std::str::from_utf8(key).ok()?;
        key.rsplit('/').next()?.parse().ok()
    }
}
