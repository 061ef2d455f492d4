-- Messages given up, whole, so that the outbox need not be kept for them. One that dies twice at once,
-- under two leases, has two rows: an insert that waited for the other one would hold up the group's
-- claims.
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
-- For pages of them, the newest first: _look_at_dead_letters().
CREATE INDEX dead_letter_dead_at ON durable_notify.dead_letter (dead_at, message_id);
