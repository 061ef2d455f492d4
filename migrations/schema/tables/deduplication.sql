-- Which message a dedup key stands for, until its window is over.
CREATE TABLE durable_notify.dedup (
    topic      text        NOT NULL,
    dedup_key  text        NOT NULL,
    message_id bigint,
    until      timestamptz NOT NULL,
    PRIMARY KEY (topic, dedup_key),
    CONSTRAINT dedup_key_is_1_to_1024_bytes CHECK (pg_catalog.octet_length(dedup_key) BETWEEN 1 AND 1024)
);
CREATE INDEX dedup_until ON durable_notify.dedup (until);
