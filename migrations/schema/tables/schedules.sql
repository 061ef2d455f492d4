-- Messages that are published again and again: by cron in a time zone, or at intervals. The times are
-- computed in Python; set_schedule() writes a row, and publish_ticks() moves it.
--   next_at:    the next tick that is not published; NULL: there is none any more
--   missed:     what becomes of ticks that no process was running for: skip, once (one message for all), or
--               all (the newest max_missed)
--   program:    whose code declares it; NULL: it was set by hand
CREATE TABLE durable_notify.schedule (
    name       text        COLLATE "C" PRIMARY KEY,
    topic      text        NOT NULL,
    key        text,
    payload    jsonb       NOT NULL,
    headers    jsonb       NOT NULL DEFAULT '{}',
    cron       text,
    every      interval,
    time_zone  text        NOT NULL DEFAULT 'UTC',
    missed     text        NOT NULL DEFAULT 'once',
    max_missed integer     NOT NULL DEFAULT 100,
    program    text,
    next_at    timestamptz,
    last_at    timestamptz,
    last_id    bigint,
    paused_at  timestamptz,
    set_at     timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    set_by     text        NOT NULL DEFAULT SESSION_USER,
    CONSTRAINT schedule_name_is_1_to_255_bytes_of_text CHECK (
        pg_catalog.octet_length(name) BETWEEN 1 AND 255 AND NOT durable_notify._has_controls(name, false)
    ),
    CONSTRAINT schedule_has_cron_or_every CHECK ((cron IS NULL) <> (every IS NULL)),
    CONSTRAINT schedule_every_is_a_second_to_1000_years CHECK (every BETWEEN '1 second' AND '1000 years'),
    -- What Python can read: one row that it cannot would stop all schedules.
    CONSTRAINT schedule_next_at_is_a_date_of_our_time CHECK (next_at BETWEEN '1970-01-01 00:00:00+00' AND '9999-01-01 00:00:00+00'),
    CONSTRAINT schedule_missed_is_skip_once_or_all CHECK (missed IN ('skip', 'once', 'all')),
    CONSTRAINT schedule_max_missed_is_1_to_1000 CHECK (max_missed BETWEEN 1 AND 1000),
    CONSTRAINT schedule_headers_are_an_object CHECK (pg_catalog.jsonb_typeof(headers) = 'object')
);
CREATE INDEX schedule_next_at ON durable_notify.schedule (next_at) WHERE paused_at IS NULL;
