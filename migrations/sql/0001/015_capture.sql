-- Who captures a channel to a topic, or did not long ago: until when all that was sent has been heard and
-- published, and the last batch of each, so that one whose commit was in doubt is not published twice.
CREATE TABLE durable_notify.capture (
    topic       text        NOT NULL,
    channel     text        NOT NULL,
    writer      text        NOT NULL,
    batch       bigint      NOT NULL DEFAULT 0,
    started_at  timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    heard_until timestamptz,
    PRIMARY KEY (topic, channel, writer)
);
