-- A batch delivered to one consumer. A row is inserted and deleted, never updated, so that settling
-- inside a caller's REPEATABLE READ transaction does not collide with extend().
CREATE TABLE durable_notify.lease (
    -- The time in microseconds, and the backend: never the same again, see claim().
    token           bigint      PRIMARY KEY DEFAULT (
        ((EXTRACT(epoch FROM pg_catalog.clock_timestamp()) * 1000000)::bigint << 12)
        | (pg_catalog.pg_backend_pid() & 4095)),
    subscription_id integer     NOT NULL,
    owner           text,
    claimed_at      timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    deadline        timestamptz NOT NULL,
    ids             bigint[]    NOT NULL,
    attempts        integer[]   NOT NULL,
    order_by        text        NOT NULL,  -- the order under which it was delivered: keys are kept in that
    keys            text[],  -- NULL: nothing is to be kept in order; see _lease_keys()
    wake_hint       text  -- what to ring when it is settled, if that may make others deliverable:
                          -- a message for its topic's consumers, * for all topics of the group
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000);

-- A later deadline of a lease, where its consumer has asked for one.
CREATE TABLE durable_notify.lease_deadline (
    token    bigint      PRIMARY KEY,
    deadline timestamptz NOT NULL
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000);

-- What has been settled of a lease that is not yet settled as a whole.
CREATE TABLE durable_notify.settlement (
    token      bigint NOT NULL,
    message_id bigint NOT NULL,
    PRIMARY KEY (token, message_id)
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000);

-- Messages that wait for something. The claim computes whether one can go.
--   reason:     retry (its next attempt), key (an earlier message of its key: parked), delivery (its
--               deliver_at) or replay (its turn)
--   key:        set when the message holds back what comes after it of its key; '' in a strict group
--   replay_job: the replay that may cancel the row; NULL: the group is owed the message, and no cancel removes it
-- A message may have several rows, each for its own reason. Every session that has a reason inserts a
-- row, and they never wait for each other. Rows are removed or changed under the group's lock only: the
-- claim takes all rows of a message at once.
-- Trap: with one row a message, and ON CONFLICT, a reason overwrites another one, and each writer waits
-- for the open transactions of handlers.
CREATE TABLE durable_notify.deferred (
    subscription_id integer     NOT NULL REFERENCES durable_notify.subscription ON DELETE CASCADE,
    message_id      bigint      NOT NULL,
    seq             bigint      GENERATED ALWAYS AS IDENTITY,
    due_at          timestamptz NOT NULL,
    attempt         integer     NOT NULL,
    reason          text        NOT NULL DEFAULT 'retry',
    key             text,
    error           jsonb,
    replay_job      bigint,
    PRIMARY KEY (subscription_id, message_id, seq),
    CONSTRAINT deferred_reason_is_known CHECK (reason IN ('retry', 'key', 'delivery', 'replay')),
    CONSTRAINT deferred_replay_has_its_job CHECK (reason <> 'replay' OR replay_job IS NOT NULL)
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000);
CREATE INDEX deferred_due ON durable_notify.deferred (subscription_id, due_at, message_id)
    WHERE key IS NULL;
CREATE INDEX deferred_key ON durable_notify.deferred (subscription_id, key, message_id, due_at)
    WHERE key IS NOT NULL;
