-- A step may wait for a person. A CHECK cannot be changed in place.
CREATE TABLE steps_4 (
  run     INTEGER NOT NULL REFERENCES runs (key) ON DELETE CASCADE,
  step    TEXT    NOT NULL,
  status  TEXT    NOT NULL CHECK (status IN ('pending', 'running', 'retrying', 'waiting', 'succeeded', 'failed', 'timed_out', 'skipped', 'not_run', 'cancelled', 'interrupted')),
  attempt INTEGER NOT NULL CHECK (attempt >= 0),
  seq     INTEGER NOT NULL, -- of the event that moved it last
  reason  TEXT    NOT NULL DEFAULT '',
  PRIMARY KEY (run, step),
  CHECK (attempt >= 1 OR status IN ('pending', 'skipped', 'not_run', 'failed', 'cancelled', 'interrupted'))
) STRICT, WITHOUT ROWID;
INSERT INTO steps_4 SELECT run, step, status, attempt, seq, reason FROM steps;
DROP TABLE steps;
ALTER TABLE steps_4 RENAME TO steps;

-- A question of a run is answered once.
CREATE UNIQUE INDEX inbox_answer ON inbox (run, json_extract(body, '$.request')) WHERE type = 'approval_answered';
