-- Times are nanoseconds since the epoch, UTC. Money is US dollars. The CHECK
-- constraints repeat the law that Append follows.

CREATE TABLE runs (
  key          INTEGER PRIMARY KEY,
  id           TEXT    NOT NULL UNIQUE CHECK (length(id) BETWEEN 1 AND 64),
  workflow     TEXT    NOT NULL,
  path         TEXT    NOT NULL,
  flow_version TEXT    NOT NULL,
  kinds        TEXT    NOT NULL CHECK (json_valid(kinds)), -- step → kind, of the frozen definition
  status       TEXT    NOT NULL CHECK (status IN ('running', 'succeeded', 'failed', 'cancelled', 'interrupted', 'waiting', 'out_of_budget', 'rate_limited')),
  class        TEXT    NOT NULL DEFAULT '',
  cause        TEXT    NOT NULL DEFAULT '',
  created_at   INTEGER NOT NULL,
  updated_at   INTEGER NOT NULL,
  finished_at  INTEGER CHECK ((finished_at IS NULL) = (status = 'running')),
  attempt      INTEGER NOT NULL DEFAULT 1 CHECK (attempt >= 1),
  fence        INTEGER NOT NULL CHECK (fence >= 1),
  last_seq     INTEGER NOT NULL CHECK (last_seq >= 1 AND last_seq < 4294967296),
  checkpoint   TEXT    -- the newest, NULL for none
) STRICT;

-- One integer key keeps a run's events together and costs one page per append,
-- where a second index would cost two.
CREATE TABLE events (
  id   INTEGER PRIMARY KEY CHECK (id = (run << 32) | seq),
  run  INTEGER NOT NULL REFERENCES runs (key) ON DELETE CASCADE,
  seq  INTEGER NOT NULL CHECK (seq >= 1 AND seq < 4294967296),
  at   INTEGER NOT NULL,
  type TEXT    NOT NULL,
  body TEXT    NOT NULL CHECK (json_valid(body))
) STRICT;

CREATE TABLE steps (
  run     INTEGER NOT NULL REFERENCES runs (key) ON DELETE CASCADE,
  step    TEXT    NOT NULL,
  status  TEXT    NOT NULL CHECK (status IN ('pending', 'running', 'retrying', 'succeeded', 'failed', 'timed_out', 'skipped', 'not_run', 'cancelled', 'interrupted')),
  attempt INTEGER NOT NULL CHECK (attempt >= 0),
  seq     INTEGER NOT NULL, -- of the event that moved it last
  reason  TEXT    NOT NULL DEFAULT '',
  PRIMARY KEY (run, step),
  CHECK (attempt >= 1 OR status IN ('pending', 'skipped', 'not_run', 'failed', 'cancelled', 'interrupted'))
) STRICT, WITHOUT ROWID;

-- One execution record an attempt.
CREATE TABLE records (
  key           INTEGER PRIMARY KEY,
  run           INTEGER NOT NULL REFERENCES runs (key) ON DELETE CASCADE,
  step          TEXT    NOT NULL,
  attempt       INTEGER NOT NULL CHECK (attempt >= 1),
  kind          TEXT    NOT NULL,
  status        TEXT    NOT NULL CHECK (status IN ('running', 'succeeded', 'failed', 'timed_out', 'cancelled', 'interrupted')),
  class         TEXT    NOT NULL DEFAULT '',
  started_at    INTEGER NOT NULL,
  duration      INTEGER NOT NULL DEFAULT 0, -- nanoseconds
  exit_code     INTEGER NOT NULL DEFAULT 0,
  error         TEXT    NOT NULL DEFAULT '',
  command       TEXT    NOT NULL DEFAULT '',
  outputs       TEXT    CHECK (outputs IS NULL OR json_valid(outputs)),
  stdout_head   TEXT    NOT NULL DEFAULT '',
  stdout_tail   TEXT    NOT NULL DEFAULT '',
  stdout_bytes  INTEGER NOT NULL DEFAULT 0,
  stderr_head   TEXT    NOT NULL DEFAULT '',
  stderr_tail   TEXT    NOT NULL DEFAULT '',
  stderr_bytes  INTEGER NOT NULL DEFAULT 0,
  log           TEXT    NOT NULL DEFAULT '',
  checkpoint    TEXT    NOT NULL DEFAULT '',
  sandbox       TEXT    NOT NULL DEFAULT '',
  changed_count INTEGER NOT NULL DEFAULT 0,
  changed       TEXT    CHECK (changed IS NULL OR json_valid(changed)),
  leftover      INTEGER NOT NULL DEFAULT 0,
  max_rss       INTEGER NOT NULL DEFAULT 0,
  provider      TEXT    NOT NULL DEFAULT '',
  model         TEXT    NOT NULL DEFAULT '',
  turns         INTEGER NOT NULL DEFAULT 0,
  tool_calls    INTEGER NOT NULL DEFAULT 0,
  denied        INTEGER NOT NULL DEFAULT 0,
  input_tokens  INTEGER NOT NULL DEFAULT 0,
  output_tokens INTEGER NOT NULL DEFAULT 0,
  cache_read    INTEGER NOT NULL DEFAULT 0,
  cache_write   INTEGER NOT NULL DEFAULT 0,
  cost_usd      REAL    NOT NULL DEFAULT 0,
  agent         TEXT    CHECK (agent IS NULL OR json_valid(agent)), -- the whole of it
  UNIQUE (run, step, attempt),
  CHECK (status <> 'succeeded' OR error = '')
) STRICT;

-- A checkpoint is a full manifest, a delta on top of another row's, or the same
-- tree as another row's. base is the key of a row of the same run that is not
-- 'same' itself. The key holds run and n, as in events; id is <run>.<n>.<nonce>.
CREATE TABLE checkpoints (
  key     INTEGER PRIMARY KEY CHECK (key = (run << 32) | n),
  run     INTEGER NOT NULL REFERENCES runs (key) ON DELETE CASCADE,
  n       INTEGER NOT NULL CHECK (n >= 1 AND n < 4294967296),
  id      TEXT    NOT NULL,
  seq     INTEGER NOT NULL, -- of the event that named it
  parent  TEXT    NOT NULL DEFAULT '',
  form    TEXT    NOT NULL CHECK (form IN ('full', 'delta', 'same')),
  base    INTEGER,
  chain   INTEGER NOT NULL, -- bytes of the deltas since the last full one
  entries INTEGER NOT NULL,
  size    INTEGER NOT NULL, -- bytes of the encoding before compression
  codec   INTEGER NOT NULL CHECK (codec IN (0, 1)),
  digest  BLOB    CHECK (digest IS NULL OR length(digest) = 32), -- SHA-256 of it
  data    BLOB,
  CHECK ((base IS NULL) = (form = 'full')),
  CHECK (base IS NULL OR (base < key AND base >> 32 = run)),
  CHECK ((data IS NULL) = (form = 'same')),
  CHECK ((digest IS NULL) = (form = 'same'))
) STRICT;

CREATE TABLE packs (
  key   INTEGER PRIMARY KEY,
  name  TEXT    NOT NULL UNIQUE,
  bytes INTEGER NOT NULL
) STRICT;

-- Contents by SHA-256: small ones here, large ones in a pack.
CREATE TABLE blobs (
  hash   BLOB    NOT NULL PRIMARY KEY CHECK (length(hash) = 32),
  codec  INTEGER NOT NULL CHECK (codec IN (0, 1)), -- raw, zstd
  size   INTEGER NOT NULL CHECK (size >= 0),
  data   BLOB,
  pack   INTEGER REFERENCES packs (key),
  off    INTEGER,
  length INTEGER,
  CHECK ((data IS NULL) <> (pack IS NULL)),
  CHECK ((pack IS NULL) = (off IS NULL) AND (pack IS NULL) = (length IS NULL))
) STRICT, WITHOUT ROWID;

-- The whole output of an attempt: short ones here, long ones in a file.
CREATE TABLE logs (
  run     INTEGER NOT NULL REFERENCES runs (key) ON DELETE CASCADE,
  step    TEXT    NOT NULL,
  attempt INTEGER NOT NULL CHECK (attempt >= 1),
  bytes   INTEGER NOT NULL, -- of the encoded log
  data    BLOB,             -- NULL: in a file
  PRIMARY KEY (run, step, attempt)
) STRICT, WITHOUT ROWID;

-- What other processes ask of a run.
CREATE TABLE inbox (
  id    INTEGER PRIMARY KEY AUTOINCREMENT,
  run   INTEGER NOT NULL REFERENCES runs (key) ON DELETE CASCADE,
  fence INTEGER NOT NULL, -- of the owner at that time
  at    INTEGER NOT NULL,
  type  TEXT    NOT NULL,
  body  TEXT    NOT NULL CHECK (json_valid(body)),
  taken INTEGER NOT NULL DEFAULT 0 CHECK (taken IN (0, 1))
) STRICT;
CREATE INDEX inbox_open ON inbox (run, id) WHERE taken = 0;
