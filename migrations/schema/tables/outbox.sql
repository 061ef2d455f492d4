-- The outbox: an append-only log. Consuming a message writes nothing here.
--
-- Partitioned by id, so that expired messages are dropped, not deleted row by row: create_partitions()
-- makes partitions ahead of time. Rows without a partition go to outbox_default, so that publishing works
-- without.
--
-- Column order matters. Defaults are evaluated in column order, so the id, being last, is drawn
-- after whatever the insert's own expressions waited for: ids of one key follow cause and effect.
-- CACHE 1 and GENERATED ALWAYS keep it so (docs/decisions/windows.md).
-- The trigger _outbox_after_insert() checks what a row must be: each statement parses CHECK constraints
-- again from their text, which took a quarter of a publisher's rate (docs/performance.md).
CREATE TABLE durable_notify.outbox (
    xid        xid8        NOT NULL DEFAULT pg_catalog.pg_current_xact_id(),
    topic      text        COLLATE "C" NOT NULL,  -- indexes that no new version of a locale breaks
    key        text,
    payload    jsonb,
    data       bytea,
    headers    jsonb,
    deliver_at timestamptz,
    expires_at timestamptz,
    created_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    id         bigint      GENERATED ALWAYS AS IDENTITY (CACHE 1),
    CONSTRAINT outbox_pkey PRIMARY KEY (topic, id)
) PARTITION BY RANGE (id);
-- Finds the rows of one transaction, or of a range of transactions, without touching the table.
CREATE INDEX outbox_topic_xid_id ON durable_notify.outbox (topic, xid, id);

-- vacuum_truncate: space at the end of a partition comes back when it is emptied; VACUUM must not lock
-- it for that.
CREATE TABLE durable_notify.outbox_default PARTITION OF durable_notify.outbox DEFAULT
    WITH (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 5000, vacuum_truncate = off);

-- Settings of the partitions: one row, or none, for the defaults; see the table watermark.
--   min_width:    how many ids a partition is made for, at least
--   ahead:        how many partitions are kept ready after the one that is written to
--   closed_below: how far partitions are closed; see _close_partitions()
--   copied:       the first id of the partition that is being rewritten, and the transaction that copied it;
--                 see _rewrite_partition()
CREATE TABLE durable_notify.partition_settings (
    only_one     boolean PRIMARY KEY DEFAULT true CHECK (only_one),
    min_width    bigint  NOT NULL DEFAULT 1000000,
    ahead        integer NOT NULL DEFAULT 2,
    closed_below bigint  NOT NULL DEFAULT 0,
    copied       bigint,
    copied_by    xid8,
    CONSTRAINT partition_settings_min_width_is_positive CHECK (min_width BETWEEN 1 AND 1000000000000),
    CONSTRAINT partition_settings_ahead_is_1_to_100 CHECK (ahead BETWEEN 1 AND 100)
);

-- When the messages of closed partitions were published: of the ids from first_id up to next_id, without
-- it, no message is later than latest. What _id_before() looks for is found with it, without an index on
-- created_at, which each insert would pay for. See _record_times().
CREATE TABLE durable_notify.stretch_time (
    first_id bigint      PRIMARY KEY,
    next_id  bigint      NOT NULL,
    latest   timestamptz NOT NULL
);
