-- A study that waits for a worker, or that a worker has until the lease ends.
CREATE TABLE jobs (
    study_uid TEXT NOT NULL PRIMARY KEY,
    generation BIGINT NOT NULL,
    -- Workers that were lost under it.
    attempts BIGINT NOT NULL,
    leased_by TEXT,
    leased_until BIGINT
);

-- Where the masks, scores and geometry of this round are kept, inside the data folder.
ALTER TABLE reports ADD COLUMN artefacts TEXT;
