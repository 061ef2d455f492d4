-- Never a row: whoever rings for something other than publishing locks it, see ring().
CREATE TABLE durable_notify.ringing ();

-- Topics that do not ring as others do; set_wakeups() changes them, and the function wakeups() with
-- them.
CREATE TABLE durable_notify.topic_wakeups (
    topic   text PRIMARY KEY,
    wakeups text NOT NULL,
    CONSTRAINT topic_wakeups_is_always_or_never CHECK (wakeups IN ('always', 'never')),
    CONSTRAINT topic_wakeups_topic_is_a_name CHECK (
        pg_catalog.octet_length(topic) BETWEEN 1 AND 255 AND NOT durable_notify.has_controls(topic, true) AND topic !~ '[*>]'
    )
);
