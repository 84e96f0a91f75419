-- Where a run was forked from: RUN, a slash, and the point in words; '' for a run
-- that began by itself. The other run may be gone: a fork holds all that it needs.
ALTER TABLE runs ADD COLUMN forked_from TEXT NOT NULL DEFAULT '';
-- A pinned run stays, whatever `flow gc` is asked to remove.
ALTER TABLE runs ADD COLUMN pinned INTEGER NOT NULL DEFAULT 0 CHECK (pinned IN (0, 1));
