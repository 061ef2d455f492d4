-- A topic as one group reads it.
CREATE TABLE durable_notify.subscription (
    id         integer     GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    group_id   integer     NOT NULL REFERENCES durable_notify.consumer_group ON DELETE CASCADE,
    topic      text        NOT NULL,
    created_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    UNIQUE (group_id, topic),
    CONSTRAINT subscription_topic_is_a_name CHECK (
        pg_catalog.octet_length(topic) BETWEEN 1 AND 255 AND NOT durable_notify._has_controls(topic, true) AND topic !~ '[*>]'
    )
);

-- A subscription's position: the newest row wins. Appended, never updated: under a held xmin a row
-- updated at every claim is walked version by version.
--   delivered:    (visible in s0 AND id <= h0) OR (visible in s1 AND id <= p)
--   s1 IS NULL:   the window is finished, the next claim opens one that ends at its own snapshot
--   h1:           the window reads ids up to it: no row visible in s1 has a higher one, or may be read yet
--   lease_tokens: tokens of leases that may still be held
--   expired:      how many messages came past their expires_at
-- No foreign key, here and in lease: its check would lock the subscription's row at every claim.
CREATE TABLE durable_notify.position (
    subscription_id integer     NOT NULL,
    seq             bigint      NOT NULL,
    s0              pg_snapshot NOT NULL,
    h0              bigint      NOT NULL,
    s1              pg_snapshot,
    h1              bigint,
    p               bigint      NOT NULL,
    lease_tokens            bigint[]    NOT NULL,
    expired         bigint      NOT NULL DEFAULT 0,
    PRIMARY KEY (subscription_id, seq)
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000);
