-- The Study Instance UID as it was sent, where several patients share it: each has a row of its own.
ALTER TABLE studies ADD COLUMN shared_study_uid TEXT;
CREATE INDEX studies_by_shared_uid ON studies (shared_study_uid);
