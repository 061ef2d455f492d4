-- The log. Append-only: consuming a message writes nothing here.
--
-- Partitioned by id, so that what has expired is dropped, not deleted row by row: make_partitions() makes
-- leaves ahead of time. What no leaf was made for goes to outbox_default, so that publishing works without.
--
-- Column order matters. Defaults are evaluated in column order, so the id, being last, is drawn
-- after whatever the insert's own expressions waited for: ids of one key follow cause and effect.
-- CACHE 1 and GENERATED ALWAYS keep it so (DESIGN section 3).
-- What a row must be is checked by the trigger published(): CHECK constraints are read anew from
-- their text by each statement, which took a quarter of a publisher's rate (docs/performance.md).
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
-- Finds the rows of one transaction, or of a range of transactions, without touching the log.
CREATE INDEX outbox_topic_xid_id ON durable_notify.outbox (topic, xid, id);
-- For replay by time; costs an insert next to nothing.
CREATE INDEX outbox_created_at ON durable_notify.outbox USING brin (created_at);
-- vacuum_truncate: space at the end of a leaf comes back when it is emptied; VACUUM is not to lock it for that.
CREATE TABLE durable_notify.outbox_default PARTITION OF durable_notify.outbox DEFAULT
    WITH (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 5000, vacuum_truncate = off);
-- How the log is laid out: one row, or none, for what is usual; see seal.
--   min_width:    how many ids a leaf is made for, at least
--   ahead:        how many leaves are kept ready after the one that is written to
--   closed_below: how far leaves are closed; see close_leaves()
--   copied:       the first id of the leaf that is written anew, and the transaction that copied it;
--                 see repack_leaf()
CREATE TABLE durable_notify.log_layout (
    only_one     boolean PRIMARY KEY DEFAULT true CHECK (only_one),
    min_width    bigint  NOT NULL DEFAULT 1000000,
    ahead        integer NOT NULL DEFAULT 2,
    closed_below bigint  NOT NULL DEFAULT 0,
    copied       bigint,
    copied_by    xid8,
    CONSTRAINT log_layout_min_width_is_positive CHECK (min_width BETWEEN 1 AND 1000000000000),
    CONSTRAINT log_layout_ahead_is_1_to_100 CHECK (ahead BETWEEN 1 AND 100)
);

-- A group and its options; configure() changes them while consumers run.
--   order_by:      none, key (of one key never two at once, never out of order) or strict (so for
--                  the whole topic, and by id)
--   exclusive:     one consumer at a time is active, the others stand by
--   retry_*:       the delay after attempt n: retry_base * retry_factor^(n-1), up to retry_max
--   on_expiry:     what becomes of a message past its expires_at: drop (counted) or dead_letter
--   park_limit:    how many messages of a topic may wait for their keys before the claim does
--   max_in_flight: the most messages leased at once, over all consumers
--   rate_limit:    the most messages handed out a second, over all consumers
CREATE TABLE durable_notify.consumer_group (
    id            integer          GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name          text             NOT NULL UNIQUE,
    order_by      text             NOT NULL DEFAULT 'key',
    exclusive     boolean          NOT NULL DEFAULT false,
    max_attempts  integer          NOT NULL DEFAULT 20,
    retry_base    interval         NOT NULL DEFAULT '1 second',
    retry_factor  double precision NOT NULL DEFAULT 2,
    retry_max     interval         NOT NULL DEFAULT '5 minutes',
    on_expiry     text             NOT NULL DEFAULT 'drop',
    park_limit    integer          NOT NULL DEFAULT 10000,
    max_in_flight integer,
    rate_limit    double precision,
    paused_at     timestamptz,
    created_at    timestamptz      NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    CONSTRAINT consumer_group_order_by_is_none_key_or_strict CHECK (order_by IN ('none', 'key', 'strict')),
    CONSTRAINT consumer_group_on_expiry_is_drop_or_dead_letter CHECK (on_expiry IN ('drop', 'dead_letter')),
    CONSTRAINT consumer_group_retry_base_is_not_negative CHECK (retry_base >= '0'),
    CONSTRAINT consumer_group_retry_factor_is_1_to_100 CHECK (retry_factor BETWEEN 1 AND 100),
    CONSTRAINT consumer_group_retry_max_is_not_negative CHECK (retry_max >= '0'),
    CONSTRAINT consumer_group_park_limit_is_positive CHECK (park_limit > 0),
    CONSTRAINT consumer_group_max_in_flight_is_positive CHECK (max_in_flight > 0),
    CONSTRAINT consumer_group_rate_limit_is_positive CHECK (rate_limit > 0 AND rate_limit <= 1000000),
    CONSTRAINT consumer_group_name_is_1_to_255_bytes_of_text CHECK (
        pg_catalog.octet_length(name) BETWEEN 1 AND 255 AND NOT durable_notify.has_controls(name, false)
    ),
    CONSTRAINT consumer_group_max_attempts_is_positive CHECK (max_attempts > 0)
);

-- One row a group, locked by who writes keys into deferred without the group's lock: FOR SHARE by settle() and
-- release(), against configure(), which changes order_by with a row of its own. So a key in deferred is
-- always one that the group's order has. Not the group's own row: pause() and others update that.
CREATE TABLE durable_notify.ordering (
    group_id integer PRIMARY KEY REFERENCES durable_notify.consumer_group ON DELETE CASCADE,
    changes  bigint  NOT NULL DEFAULT 0
) WITH (fillfactor = 50);

-- Patterns of topics that a group consumes; discover() subscribes it to what matches.
CREATE TABLE durable_notify.pattern (
    group_id   integer     NOT NULL REFERENCES durable_notify.consumer_group ON DELETE CASCADE,
    pattern    text        NOT NULL,
    created_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    PRIMARY KEY (group_id, pattern)
);

-- The active consumer of an exclusive group; the others wait for its deadline.
CREATE TABLE durable_notify.active (
    group_id integer     PRIMARY KEY REFERENCES durable_notify.consumer_group ON DELETE CASCADE,
    consumer text        NOT NULL,
    since    timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    deadline timestamptz NOT NULL
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000);

-- What a group with a rate limit may still hand out: a token bucket.
CREATE TABLE durable_notify.allowance (
    group_id integer          PRIMARY KEY REFERENCES durable_notify.consumer_group ON DELETE CASCADE,
    tokens   double precision NOT NULL,
    at       timestamptz      NOT NULL
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000);

-- How far a strict group may read: ids up to last_id, once the publishers noted have ended.
CREATE TABLE durable_notify.horizon (
    group_id  integer PRIMARY KEY REFERENCES durable_notify.consumer_group ON DELETE CASCADE,
    last_id   bigint  NOT NULL,
    noted_id  bigint,
    waits_for xid[]   NOT NULL
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000);

-- A topic as one group reads it.
CREATE TABLE durable_notify.subscription (
    id         integer     GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    group_id   integer     NOT NULL REFERENCES durable_notify.consumer_group ON DELETE CASCADE,
    topic      text        NOT NULL,
    created_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    UNIQUE (group_id, topic),
    CONSTRAINT subscription_topic_is_a_name CHECK (
        pg_catalog.octet_length(topic) BETWEEN 1 AND 255 AND NOT durable_notify.has_controls(topic, true) AND topic !~ '[*>]'
    )
);

-- Where a subscription stands: the newest row wins. Appended, never updated: under a held xmin a
-- row updated at every claim is walked version by version.
--   handed over: (visible in s0 AND id <= h0) OR (visible in s1 AND id <= p)
--   s1 IS NULL:  the window is finished, the next claim opens one that ends at its own snapshot
--   h1:          the window reads ids up to it: no row visible in s1 has a higher one, or may be read yet
--   live:        tokens of leases that may still be held
--   expired:     how many messages came past their expires_at
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
    expired         bigint      NOT NULL DEFAULT 0,
    PRIMARY KEY (subscription_id, seq)
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000);

-- A batch handed to one consumer. A row is inserted and deleted, never updated, so that settling
-- inside a caller's REPEATABLE READ transaction does not collide with the heartbeat.
CREATE TABLE durable_notify.lease (
    -- The time in microseconds, and the backend: never the same again, see claim_topic().
    token           bigint      PRIMARY KEY DEFAULT (
        ((EXTRACT(epoch FROM pg_catalog.clock_timestamp()) * 1000000)::bigint << 12)
        | (pg_catalog.pg_backend_pid() & 4095)),
    subscription_id integer     NOT NULL,
    owner           text,
    claimed_at      timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    deadline        timestamptz NOT NULL,
    ids             bigint[]    NOT NULL,
    attempts        integer[]   NOT NULL,
    order_by        text        NOT NULL,  -- the order that it was handed out under: keys are kept in that
    keys            text[],  -- NULL: nothing is to be kept in order; see keys_of()
    rings           text  -- what to ring when it is settled, where that may make others deliverable:
                          -- a message for its topic's consumers, * for all topics of the group
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

-- Messages that wait for something. Whether one can go is computed by the claim.
--   waits_for:  retry (its next attempt), key (what is before it of its key: parked), delivery (its
--               deliver_at) or replay (its turn)
--   key:        set when the message holds back what comes after it of its key; '' in a strict group
--   replay_job: the replay that may take the row back; NULL: the group is owed the message, and no cancel takes it
-- A message may have several rows, each for a reason of its own. Rows are inserted by all who have a reason,
-- and never wait for each other. Rows are removed or changed under the group's lock only: the claim takes
-- all rows of a message at once.
-- Trap: one row a message, with ON CONFLICT: a reason overwrites another one, and each writer waits for the
-- open transactions of handlers.
CREATE TABLE durable_notify.deferred (
    subscription_id integer     NOT NULL REFERENCES durable_notify.subscription ON DELETE CASCADE,
    message_id      bigint      NOT NULL,
    seq             bigint      GENERATED ALWAYS AS IDENTITY,
    due_at          timestamptz NOT NULL,
    attempt         integer     NOT NULL,
    waits_for       text        NOT NULL DEFAULT 'retry',
    key             text,
    error           jsonb,
    replay_job      bigint,
    PRIMARY KEY (subscription_id, message_id, seq),
    CONSTRAINT deferred_waits_for CHECK (waits_for IN ('retry', 'key', 'delivery', 'replay')),
    CONSTRAINT deferred_replay_has_its_job CHECK (waits_for <> 'replay' OR replay_job IS NOT NULL)
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000);
CREATE INDEX deferred_due ON durable_notify.deferred (subscription_id, due_at, message_id)
    WHERE key IS NULL;
CREATE INDEX deferred_key ON durable_notify.deferred (subscription_id, key, message_id, due_at)
    WHERE key IS NOT NULL;

-- Messages given up, whole, so that the log need not be kept for them. One that dies twice at once, under two
-- leases, has two rows: an insert that waited for the other one would hold up the group's claims.
CREATE TABLE durable_notify.dead_letter (
    subscription_id integer     NOT NULL REFERENCES durable_notify.subscription ON DELETE CASCADE,
    message_id      bigint      NOT NULL,
    seq             bigint      GENERATED ALWAYS AS IDENTITY,
    topic           text        NOT NULL,
    key             text,
    payload         jsonb,
    data            bytea,
    headers         jsonb,
    published_at    timestamptz NOT NULL,
    attempt         integer     NOT NULL,
    reason          text        NOT NULL,
    error           jsonb,
    dead_at         timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    PRIMARY KEY (subscription_id, message_id, seq)
);
