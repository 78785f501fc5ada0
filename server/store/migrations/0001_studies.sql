-- Runs on SQLite and PostgreSQL: TEXT and BIGINT only, ids made by Tez.
-- Times are milliseconds since 1970 UTC. JSON is TEXT.

-- Every acknowledged object. The file is the truth; a row lost is read again from it.
CREATE TABLE objects (
    path TEXT NOT NULL PRIMARY KEY,
    content TEXT NOT NULL,
    sop_instance_uid TEXT NOT NULL,
    sop_class_uid TEXT,
    transfer_syntax_uid TEXT,
    study_uid TEXT,
    series_uid TEXT,
    bytes BIGINT NOT NULL,
    received_at BIGINT NOT NULL,
    channel TEXT,
    peer TEXT NOT NULL,
    receipt TEXT NOT NULL,
    refusal TEXT
);
CREATE INDEX objects_by_study ON objects (study_uid, received_at);
CREATE INDEX objects_by_uid ON objects (sop_instance_uid);

CREATE TABLE studies (
    uid TEXT NOT NULL PRIMARY KEY,
    internal_id BIGINT NOT NULL UNIQUE,
    state TEXT NOT NULL,
    generation BIGINT NOT NULL,
    priority_rank BIGINT NOT NULL,
    summary TEXT NOT NULL,
    result_generation BIGINT,
    patient_name TEXT NOT NULL,
    patient_id TEXT NOT NULL,
    patient_birth_date TEXT NOT NULL,
    patient_sex TEXT NOT NULL,
    patient_age TEXT NOT NULL,
    accession_number TEXT NOT NULL,
    study_date TEXT NOT NULL,
    study_time TEXT NOT NULL,
    study_description TEXT NOT NULL,
    institution_name TEXT NOT NULL,
    object_count BIGINT NOT NULL,
    image_count BIGINT NOT NULL,
    conflict_count BIGINT NOT NULL,
    received_first_at BIGINT NOT NULL,
    received_last_at BIGINT NOT NULL,
    complete_at BIGINT,
    queued_at BIGINT,
    analysis_started_at BIGINT,
    analysed_at BIGINT
);
CREATE INDEX studies_in_order ON studies (priority_rank, received_first_at, internal_id);
CREATE INDEX studies_by_state ON studies (state);

-- One row for each round of analysis; the older ones are kept as superseded.
CREATE TABLE reports (
    study_uid TEXT NOT NULL,
    generation BIGINT NOT NULL,
    report TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    superseded_at BIGINT,
    PRIMARY KEY (study_uid, generation)
);

-- What was refused, doubled with other content or left out, with its reason.
CREATE TABLE problems (
    id BIGINT NOT NULL PRIMARY KEY,
    at BIGINT NOT NULL,
    study_uid TEXT,
    sop_instance_uid TEXT,
    path TEXT,
    peer TEXT NOT NULL,
    reason TEXT NOT NULL
);
CREATE INDEX problems_by_study ON problems (study_uid, id);
