-- Format 1 of the store; `user_version` holds this number.

-- One row for each generation.
CREATE TABLE generation (
    number        INTEGER PRIMARY KEY CHECK (number > 0),
    -- The generation that it was made from; 0: none.
    parent        INTEGER NOT NULL CHECK (parent >= 0 AND parent < number),
    -- The digest of the routing table.
    digest        TEXT NOT NULL CHECK (length(digest) = 32),
    -- The version that the routing document states.
    version       TEXT NOT NULL,
    keys          INTEGER NOT NULL CHECK (keys >= 0),
    -- RFC 3339, UTC.
    time          TEXT NOT NULL,
    -- Who made it, from which address or file, and with which request.
    author        TEXT NOT NULL,
    source        TEXT NOT NULL,
    action        TEXT NOT NULL,
    keys_set      INTEGER NOT NULL CHECK (keys_set >= 0),
    keys_removed  INTEGER NOT NULL CHECK (keys_removed >= 0),
    -- Whether anything other than keys changed.
    head_changed  INTEGER NOT NULL CHECK (head_changed IN (0, 1)),
    -- Unique for each attempt to make a change.
    attempt       TEXT NOT NULL,
    -- XXH3-64 of all the above.
    checksum      INTEGER NOT NULL,
    -- What its rows in `content` hold: a routing document, or the delta from `parent`.
    content       TEXT NOT NULL CHECK (content IN ('table', 'delta')),
    content_bytes INTEGER NOT NULL CHECK (content_bytes > 0),
    -- XXH3-64 of the content.
    content_checksum INTEGER NOT NULL
) STRICT;

-- The content of each generation: JSON, in parts of at most 1 MiB.
CREATE TABLE content (
    generation INTEGER NOT NULL
        REFERENCES generation ON DELETE CASCADE DEFERRABLE INITIALLY DEFERRED,
    part       INTEGER NOT NULL CHECK (part >= 0),
    bytes      BLOB NOT NULL,
    PRIMARY KEY (generation, part)
) STRICT, WITHOUT ROWID;
