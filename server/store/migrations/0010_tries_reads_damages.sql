-- Written to find out whether the database can be written.
CREATE TABLE tries (number BIGINT NOT NULL);
INSERT INTO tries (number) VALUES (0);

-- Studies that somebody has read, with the result that was read. Deleted when a result changes.
CREATE TABLE reads (
    study_uid TEXT NOT NULL PRIMARY KEY,
    result_generation BIGINT NOT NULL,
    read_at BIGINT NOT NULL
);

-- Kept objects whose file is damaged or gone, until they are sent again.
CREATE TABLE damages (
    path TEXT NOT NULL PRIMARY KEY,
    study_uid TEXT,
    kind TEXT NOT NULL,
    found_at BIGINT NOT NULL
);
CREATE INDEX damages_by_study ON damages (study_uid);

-- The worklist's order: by priority, the newest first.
DROP INDEX studies_in_order;
CREATE INDEX studies_newest_first ON studies
    (priority_rank, received_last_at DESC, internal_id DESC);
