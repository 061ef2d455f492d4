-- A group and its options; configure() changes them while consumers run.
--   order_by:      none, key (of one key never two at once, never out of order) or strict (the same
--                  for the whole topic, and by id)
--   exclusive:     one consumer at a time is active, the others stand by
--   retry_*:       the delay after attempt n: retry_base * retry_factor^(n-1), up to retry_max
--   retry_delays:  if it has any, the delay after attempt n is its n-th, in seconds, and then its last
--   on_expiry:     what becomes of a message past its expires_at: drop (counted) or dead_letter
--   park_limit:    how many messages of a topic may wait for their keys before the claim does
--   max_in_flight: the most messages leased at once, over all consumers
--   rate_limit:    the most messages delivered a second, over all consumers
CREATE TABLE durable_notify.consumer_group (
    id            integer          GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name          text             NOT NULL UNIQUE,
    order_by      text             NOT NULL DEFAULT 'key',
    exclusive     boolean          NOT NULL DEFAULT false,
    max_attempts  integer          NOT NULL DEFAULT 20,
    retry_base    interval         NOT NULL DEFAULT '1 second',
    retry_factor  double precision NOT NULL DEFAULT 2,
    retry_max     interval         NOT NULL DEFAULT '5 minutes',
    retry_delays  double precision[] NOT NULL DEFAULT '{}',
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
    CONSTRAINT consumer_group_retry_delays_are_100_numbers_up_to_1e9_at_most CHECK (
        pg_catalog.cardinality(retry_delays) <= 100 AND pg_catalog.array_position(retry_delays, NULL) IS NULL
        AND 0 <= ALL (retry_delays) AND 1e9 >= ALL (retry_delays)
    ),
    CONSTRAINT consumer_group_park_limit_is_positive CHECK (park_limit > 0),
    CONSTRAINT consumer_group_max_in_flight_is_positive CHECK (max_in_flight > 0),
    CONSTRAINT consumer_group_rate_limit_is_positive CHECK (rate_limit > 0 AND rate_limit <= 1000000),
    CONSTRAINT consumer_group_name_is_1_to_255_bytes_of_text CHECK (
        pg_catalog.octet_length(name) BETWEEN 1 AND 255 AND NOT durable_notify._has_controls(name, false)
    ),
    CONSTRAINT consumer_group_max_attempts_is_positive CHECK (max_attempts > 0)
);

-- One row a group, locked by sessions that write keys into deferred without the group's lock: FOR SHARE
-- by settle() and release(), against configure(), which changes order_by with a row of its own. So a
-- key in deferred is always one that the group's order has. Not the group's own row: pause() and others
-- update that.
CREATE TABLE durable_notify.ordering (
    group_id integer PRIMARY KEY REFERENCES durable_notify.consumer_group ON DELETE CASCADE,
    changes  bigint  NOT NULL DEFAULT 0
) WITH (fillfactor = 50);

-- Patterns of topics that a group consumes; discover() subscribes it to what matches.
CREATE TABLE durable_notify.group_pattern (
    group_id   integer     NOT NULL REFERENCES durable_notify.consumer_group ON DELETE CASCADE,
    pattern    text        NOT NULL,
    created_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    PRIMARY KEY (group_id, pattern)
);

-- The active consumer of an exclusive group; the others wait for its deadline.
CREATE TABLE durable_notify.active_consumer (
    group_id integer     PRIMARY KEY REFERENCES durable_notify.consumer_group ON DELETE CASCADE,
    consumer text        NOT NULL,
    since    timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    deadline timestamptz NOT NULL
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000);

-- How much may still be delivered to a group with a rate limit: a token bucket.
CREATE TABLE durable_notify.rate_bucket (
    group_id integer          PRIMARY KEY REFERENCES durable_notify.consumer_group ON DELETE CASCADE,
    tokens   double precision NOT NULL,
    at       timestamptz      NOT NULL
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000);
