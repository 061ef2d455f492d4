-- Topics whose messages also go to a channel of NOTIFY, for programs that only LISTEN. set_mirror()
-- changes them, and the function mirror_of() with them.
CREATE TABLE durable_notify.topic_mirror (
    topic   text PRIMARY KEY,
    channel text NOT NULL,
    CONSTRAINT topic_mirror_topic_is_a_name CHECK (
        pg_catalog.octet_length(topic) BETWEEN 1 AND 255 AND NOT durable_notify._has_controls(topic, true) AND topic !~ '[*>]'
    ),
    CONSTRAINT topic_mirror_channel_is_1_to_63_bytes CHECK (pg_catalog.octet_length(channel) BETWEEN 1 AND 63)
);

-- The writers that capture a channel to a topic, or did not long ago: until when each has heard and
-- published all that was sent, and its last batch, so that a batch whose commit was in doubt is not
-- published twice.
CREATE TABLE durable_notify.capture (
    topic       text        NOT NULL,
    channel     text        NOT NULL,
    writer      text        NOT NULL,
    batch       bigint      NOT NULL DEFAULT 0,
    started_at  timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    heard_until timestamptz,
    PRIMARY KEY (topic, channel, writer),
    CONSTRAINT capture_topic_is_a_name CHECK (
        pg_catalog.octet_length(topic) BETWEEN 1 AND 255 AND NOT durable_notify._has_controls(topic, true) AND topic !~ '[*>]'
    ),
    CONSTRAINT capture_channel_is_1_to_63_bytes CHECK (pg_catalog.octet_length(channel) BETWEEN 1 AND 63),
    CONSTRAINT capture_writer_is_1_to_255_bytes CHECK (pg_catalog.octet_length(writer) BETWEEN 1 AND 255)
);
