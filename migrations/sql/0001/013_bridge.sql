-- Topics whose messages also go to a channel of NOTIFY, for programs that only LISTEN. set_mirror()
-- changes them, and the function mirror_of() with them.
CREATE TABLE durable_notify.topic_mirror (
    topic   text PRIMARY KEY,
    channel text NOT NULL,
    CONSTRAINT topic_mirror_topic_is_a_name CHECK (
        pg_catalog.octet_length(topic) BETWEEN 1 AND 255 AND NOT durable_notify.has_controls(topic, true) AND topic !~ '[*>]'
    ),
    CONSTRAINT topic_mirror_channel_is_1_to_63_bytes CHECK (pg_catalog.octet_length(channel) BETWEEN 1 AND 63)
);
