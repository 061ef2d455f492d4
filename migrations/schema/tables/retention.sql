-- What is removed from a topic, and when; set_retention() writes it. pattern is a topic, or a pattern
-- of topics as _topic_regex() has it; the lowest rank that matches a topic counts, see
-- _pattern_specificity().
--   max_age:      so long after it was published
--   max_bytes:    once so much of the topic is younger, as _measure_topic() measures it
--   when_settled: as soon as every group has settled it, if there is a group
--   on_lag:       if a group has not settled it: block (it stays), or lose (recorded in lost_message)
--   alarm_bytes:  how much may stay because a group lags before it is an alarm
--   compact:      the latest message of each key stays
--   archive:      only what is archived is removed
--   min_age:      with when_settled: not before so long after it was published
-- A row with none of these keeps everything: a more specific pattern than one that removes.
CREATE TABLE durable_notify.topic_retention (
    pattern      text        COLLATE "C" PRIMARY KEY,
    regex        text        NOT NULL,
    rank         text        COLLATE "C" NOT NULL,
    max_age      interval,
    max_bytes    bigint,
    when_settled boolean     NOT NULL DEFAULT false,
    on_lag       text        NOT NULL DEFAULT 'block',
    alarm_bytes  bigint,
    compact      boolean     NOT NULL DEFAULT false,
    archive      boolean     NOT NULL DEFAULT false,
    set_at       timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    set_by       text        NOT NULL DEFAULT SESSION_USER,
    min_age      interval,
    CONSTRAINT topic_retention_on_lag CHECK (on_lag IN ('block', 'lose'))
);

-- For how long records are kept, by kind; set_record_age() writes it. Without a row, or with NULL: for ever.
--   inbox: what once() remembers
--   audit: the audit, losses, and replays that have ended
CREATE TABLE durable_notify.record_age (
    kind   text        PRIMARY KEY,
    age    interval,
    set_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    set_by text        NOT NULL DEFAULT SESSION_USER,
    CONSTRAINT record_age_kind CHECK (kind IN ('inbox', 'audit')),
    CONSTRAINT record_age_is_positive CHECK (age > '0')
);

-- How far maintenance has come in a topic: all ids below are archived, planned to be archived next,
-- compacted, or measured.
--   removed_id, removed_xid: the highest id that retention has removed, and the highest transaction
--                            id. Readers that were beyond both have lost nothing
CREATE TABLE durable_notify.maintenance_progress (
    topic           text   COLLATE "C" PRIMARY KEY,
    archived_below  bigint NOT NULL DEFAULT 1,
    archiving_below bigint,
    compacted_below bigint NOT NULL DEFAULT 1,
    measured_below  bigint NOT NULL DEFAULT 1,
    removed_id      bigint,
    removed_xid     xid8
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000);

-- How much a stretch of a topic takes, for topics with a limit or an alarm by size.
CREATE TABLE durable_notify.topic_size (
    topic    text   COLLATE "C" NOT NULL,
    upto_id  bigint NOT NULL,
    messages bigint NOT NULL,
    bytes    bigint NOT NULL,
    PRIMARY KEY (topic, upto_id)
) WITH (fillfactor = 70);

-- The latest message of each key of a compacted topic, up to compacted_below.
CREATE TABLE durable_notify.compacted_key (
    topic      text   COLLATE "C" NOT NULL,
    key        text   COLLATE "C" NOT NULL,
    message_id bigint NOT NULL,
    PRIMARY KEY (topic, key)
) WITH (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.05);
CREATE INDEX compacted_key_message_id ON durable_notify.compacted_key (topic, message_id);

-- What groups lost to retention with on_lag lose. By name: a row must outlast the group.
CREATE TABLE durable_notify.lost_message (
    id         bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at         timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    group_name text        NOT NULL,
    topic      text        NOT NULL,
    first_id   bigint      NOT NULL,
    last_id    bigint      NOT NULL,
    messages   bigint      NOT NULL,
    reason     text        NOT NULL
);

-- Ids up to last_id are decided: nothing can appear there any more. Ids up to pending_id are, once the
-- transactions in publishers have ended; see _advance_watermark(). A row for each strict group that had to
-- wait, and the outbox's own.
--   group_id: 0 for the outbox. No foreign key: its check would lock the group's row at a claim
-- Maintenance makes the outbox's row: if logical replication brings one, no other row may be in its way.
CREATE TABLE durable_notify.watermark (
    group_id   integer PRIMARY KEY,
    last_id    bigint  NOT NULL,
    pending_id bigint,
    publishers xid[]   NOT NULL
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000);

-- One row: which worker maintains, and when it last gave a sign of life; when a round was last done,
-- and what it did.
CREATE TABLE durable_notify.maintenance (
    only_one boolean PRIMARY KEY DEFAULT true CHECK (only_one),
    worker   text,
    beat_at  timestamptz,
    done_at  timestamptz,
    report   jsonb
) WITH (fillfactor = 50);

-- Partitions whose messages may all be removed, and when that was found; see _mark_unwanted().
--   first_id: where the partition begins; 0: outbox_default
--   seen:     what was looked at: in outbox_default more may have appeared since
--   since:    the transaction that found it: snapshots that see it committed see that no group wants the messages
CREATE TABLE durable_notify.unwanted_partition (
    first_id    bigint      PRIMARY KEY,
    seen        pg_snapshot NOT NULL,
    since       xid8        NOT NULL,
    recorded_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp()
);
