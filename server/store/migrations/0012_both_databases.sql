-- The order in which objects came; their times, in milliseconds, do not tell it.
ALTER TABLE objects ADD COLUMN arrival BIGINT NOT NULL DEFAULT 0;
UPDATE objects SET arrival = received_at * 1000;
-- The folder of the file, two hexadecimal digits: text is not sorted alike by every database.
ALTER TABLE objects ADD COLUMN folder TEXT NOT NULL DEFAULT '';
UPDATE objects SET folder = substr(path, 9, 2) WHERE path LIKE 'objects/__/%';
-- With what a start compares, so that it reads the index alone.
CREATE INDEX objects_by_folder ON objects (folder, path, study_uid);
-- What its header says, read once.
ALTER TABLE objects ADD COLUMN header TEXT;
DROP INDEX objects_by_study;
CREATE INDEX objects_in_order ON objects (study_uid, arrival);
CREATE INDEX objects_unreadable ON objects (received_at) WHERE refusal IS NOT NULL;

-- Not analysed for want of a model or a library, which may be there by now: tried again.
ALTER TABLE studies ADD COLUMN awaits_model BIGINT NOT NULL DEFAULT 0;
UPDATE studies SET awaits_model = 1 WHERE state = 'not_analysed'
    AND (summary LIKE '%inference_library_missing%' OR summary LIKE '%model_unavailable%');
DROP INDEX studies_by_state;
CREATE INDEX studies_by_state ON studies (state, awaits_model);

-- The reason's code, for finding problems of a kind.
ALTER TABLE problems ADD COLUMN code TEXT NOT NULL DEFAULT '';
UPDATE problems SET code = 'unread_objects' WHERE reason LIKE '%"unread_objects"%';

-- Files that a start found and no row names, until they are read.
CREATE TABLE found_files (
    path TEXT NOT NULL PRIMARY KEY,
    came_at BIGINT NOT NULL
);
CREATE INDEX found_files_in_order ON found_files (came_at, path);
