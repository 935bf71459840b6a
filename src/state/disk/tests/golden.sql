PRAGMA user_version = 1;
CREATE TABLE journal (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    record TEXT NOT NULL,
    sum INTEGER NOT NULL
) STRICT;
INSERT INTO journal VALUES (1, '{"run":{"serving":2,"since":"2026-01-03T20:46:02.000Z","ended":true},"last_crash":"2026-01-03T20:46:02.000Z","last_contact":"2026-01-03T20:46:12.000Z","generations":[{"number":1,"digest":"c88f849936b3dd7a01fa085ef14cd4c5","applied_at":"2026-01-03T20:45:12.000Z","promoted_at":"2026-01-03T20:45:43.000Z"},{"number":2,"digest":"2bd365fdc791ac630efd74c38d7ff2d2","applied_at":"2026-01-03T20:45:21.000Z","crashed":"2026-01-03T20:46:02.000Z","quarantined_at":"2026-01-03T20:46:03.000Z"}]}', 4288238421963249422);
CREATE TABLE generations (
    number INTEGER PRIMARY KEY,
    record TEXT NOT NULL,
    sum INTEGER NOT NULL
) STRICT;
INSERT INTO generations VALUES (1, '{"generation":1,"digest":"c88f849936b3dd7a01fa085ef14cd4c5","source":"file","sha256":"b7956f2cae6c00be34d6cf1eca576baeb859056e233385d3ea8d07cfbe47eefb","applied_at":"2026-01-03T20:45:12.000Z"}', -3569663468927468799);
INSERT INTO generations VALUES (2, '{"generation":2,"digest":"2bd365fdc791ac630efd74c38d7ff2d2","source":"control_plane","control_generation":77,"applied_at":"2026-01-03T20:45:21.000Z","delta":{"parent":1,"set":[["a \"new\" kéy","two"]],"remove":["acme"]}}', 1020379127154858409);
CREATE TABLE snapshots (
    generation INTEGER NOT NULL,
    chunk INTEGER NOT NULL,
    bytes BLOB NOT NULL,
    PRIMARY KEY (generation, chunk)
) STRICT;
INSERT INTO snapshots VALUES (1, 0, x'28b52ffd04482d0400f2481e22a0371d7355550111bbb624ed88c86ed5665bd276a9c4cd85dc117b496f33e9fe8509d5ddf3cb4d04a9e2ac571d852f123a4a8fd1e5ac7ac2539fdda56b48435a2071c7914f37e2795d3e958f7a1b7e961dc4a8f0acba2e3faf0e7c67e7a99f170098663416c3ebca421357d63b95d7687885c3362d31742a0200cb90f1eaf4340303ccc2ed');
