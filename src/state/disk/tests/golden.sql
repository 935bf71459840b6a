PRAGMA user_version = 1;
CREATE TABLE journal (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    record TEXT NOT NULL,
    sum INTEGER NOT NULL
) STRICT;
INSERT INTO journal VALUES (1, '{"run":{"serving":2,"since":"2026-01-03T20:46:02.000Z","ended":true},"last_crash":"2026-01-03T20:46:02.000Z","last_contact":"2026-01-03T20:46:12.000Z","generations":[{"number":1,"digest":"bd40082363c8623ed09b3c2749253eb0","applied_at":"2026-01-03T20:45:12.000Z","promoted_at":"2026-01-03T20:45:43.000Z"},{"number":2,"digest":"2083e987f4a63127dd9ea88be5585cbd","applied_at":"2026-01-03T20:45:21.000Z","crashed":"2026-01-03T20:46:02.000Z","quarantined_at":"2026-01-03T20:46:03.000Z"}]}', 2858745184635999281);
CREATE TABLE generations (
    number INTEGER PRIMARY KEY,
    record TEXT NOT NULL,
    sum INTEGER NOT NULL
) STRICT;
INSERT INTO generations VALUES (1, '{"generation":1,"digest":"bd40082363c8623ed09b3c2749253eb0","source":"file","sha256":"485cc08b5c10b736f806a1bcd10fe5c95e57bac2b289bb30b534f582cb028824","applied_at":"2026-01-03T20:45:12.000Z"}', 2082324539515496989);
INSERT INTO generations VALUES (2, '{"generation":2,"digest":"2083e987f4a63127dd9ea88be5585cbd","source":"control_plane","control_generation":77,"applied_at":"2026-01-03T20:45:21.000Z","delta":{"parent":1,"set":[["a \"new\" kéy","two"]],"remove":["acme"]}}', -3686649350654342282);
CREATE TABLE snapshots (
    generation INTEGER NOT NULL,
    chunk INTEGER NOT NULL,
    bytes BLOB NOT NULL,
    PRIMARY KEY (generation, chunk)
) STRICT;
INSERT INTO snapshots VALUES (1, 0, x'28b52ffd04485503003287171a80b939d3885acc5b11eb8c88595a17d9a4a7817b1b2970125323cfc9e854c62c47f86c3ef9524db0ad5185233ecf8726d6c7091332908100472a0a54760f463fd50ecd6c3255900cb4f6e5f3fc54a39f2c65877e23a88121d936bad8050200cb90f1e3f43403d06932c0');
