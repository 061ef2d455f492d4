-- The log. Append-only: consuming a message writes nothing here.
--
-- Column order matters. Defaults are evaluated in column order, so the id, being last, is drawn
-- after whatever the insert's own expressions waited for: ids of one key follow cause and effect.
-- CACHE 1 and GENERATED ALWAYS keep it so (DESIGN section 3).
CREATE TABLE durable_notify.outbox (
    xid        xid8        NOT NULL DEFAULT pg_catalog.pg_current_xact_id(),
    topic      text        NOT NULL,
    key        text,
    payload    jsonb,
    data       bytea,
    headers    jsonb,
    created_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    id         bigint      GENERATED ALWAYS AS IDENTITY (CACHE 1),
    CONSTRAINT outbox_pkey PRIMARY KEY (topic, id),
    CONSTRAINT outbox_topic_is_a_name CHECK (
        pg_catalog.octet_length(topic) BETWEEN 1 AND 255 AND topic !~ '[\u0001-\u0020\u007f-\u00a0*>]'
    ),
    CONSTRAINT outbox_key_is_1_to_1024_bytes_of_text CHECK (
        pg_catalog.octet_length(key) BETWEEN 1 AND 1024 AND key !~ '[\u0001-\u001f\u007f-\u009f]'
    ),
    CONSTRAINT outbox_either_payload_or_data CHECK ((payload IS NULL) <> (data IS NULL)),
    CONSTRAINT outbox_headers_are_an_object CHECK (pg_catalog.jsonb_typeof(headers) = 'object')
);
-- Finds the rows of one transaction, or of a range of transactions, without touching the log.
CREATE INDEX outbox_topic_xid_id ON durable_notify.outbox (topic, xid, id);
-- For replay by time; costs an insert next to nothing.
CREATE INDEX outbox_created_at ON durable_notify.outbox USING brin (created_at);

CREATE TABLE durable_notify.consumer_group (
    id           integer     GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name         text        NOT NULL UNIQUE,
    max_attempts integer     NOT NULL DEFAULT 20,
    created_at   timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    CONSTRAINT consumer_group_name_is_1_to_255_bytes_of_text CHECK (
        pg_catalog.octet_length(name) BETWEEN 1 AND 255 AND name !~ '[\u0001-\u001f\u007f-\u009f]'
    ),
    CONSTRAINT consumer_group_max_attempts_is_positive CHECK (max_attempts > 0)
);

-- A topic as one group reads it.
CREATE TABLE durable_notify.subscription (
    id         integer     GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    group_id   integer     NOT NULL REFERENCES durable_notify.consumer_group ON DELETE CASCADE,
    topic      text        NOT NULL,
    created_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    UNIQUE (group_id, topic),
    CONSTRAINT subscription_topic_is_a_name CHECK (
        pg_catalog.octet_length(topic) BETWEEN 1 AND 255 AND topic !~ '[\u0001-\u0020\u007f-\u00a0*>]'
    )
);

-- Where a subscription stands: the newest row wins. Appended, never updated: under a held xmin a
-- row updated at every claim is walked version by version.
--   handed over: (visible in s0 AND id <= h0) OR (visible in s1 AND id <= p)
--   s1 IS NULL:  the window is finished, the next claim opens one that ends at its own snapshot
--   h1:          no row visible in s1 has a higher id
--   live:        tokens of leases that may still be held
-- No foreign key, here and in lease: its check would lock the subscription's row at every claim.
CREATE TABLE durable_notify.position (
    subscription_id integer     NOT NULL,
    seq             bigint      NOT NULL,
    s0              pg_snapshot NOT NULL,
    h0              bigint      NOT NULL,
    s1              pg_snapshot,
    h1              bigint,
    p               bigint      NOT NULL,
    live            bigint[]    NOT NULL,
    PRIMARY KEY (subscription_id, seq)
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000);

-- A batch handed to one consumer. A row is inserted and deleted, never updated, so that settling
-- inside a caller's REPEATABLE READ transaction does not collide with the heartbeat.
CREATE TABLE durable_notify.lease (
    token           bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    subscription_id integer     NOT NULL,
    owner           text,
    claimed_at      timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    deadline        timestamptz NOT NULL,
    ids             bigint[]    NOT NULL,
    attempts        integer[]   NOT NULL
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000);

-- A later deadline of a lease, where its consumer has asked for one.
CREATE TABLE durable_notify.heartbeat (
    token    bigint      PRIMARY KEY,
    deadline timestamptz NOT NULL
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000);

-- What has been settled of a lease that is not yet settled as a whole.
CREATE TABLE durable_notify.settlement (
    token      bigint NOT NULL,
    message_id bigint NOT NULL,
    PRIMARY KEY (token, message_id)
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000);

-- Messages that wait for their next attempt.
CREATE TABLE durable_notify.deferred (
    subscription_id integer     NOT NULL REFERENCES durable_notify.subscription ON DELETE CASCADE,
    message_id      bigint      NOT NULL,
    due_at          timestamptz NOT NULL,
    attempt         integer     NOT NULL,
    error           text,
    PRIMARY KEY (subscription_id, message_id)
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000);
CREATE INDEX deferred_due ON durable_notify.deferred (subscription_id, due_at, message_id);

-- Messages given up, whole, so that the log need not be kept for them.
CREATE TABLE durable_notify.dead_letter (
    subscription_id integer     NOT NULL REFERENCES durable_notify.subscription ON DELETE CASCADE,
    message_id      bigint      NOT NULL,
    topic           text        NOT NULL,
    key             text,
    payload         jsonb,
    data            bytea,
    headers         jsonb,
    published_at    timestamptz NOT NULL,
    attempt         integer     NOT NULL,
    reason          text        NOT NULL,
    dead_at         timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    PRIMARY KEY (subscription_id, message_id)
);
