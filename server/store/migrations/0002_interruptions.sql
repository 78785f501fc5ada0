-- How often Tez ended while it analysed the study as it is now.
ALTER TABLE studies ADD COLUMN interruptions BIGINT NOT NULL DEFAULT 0;
