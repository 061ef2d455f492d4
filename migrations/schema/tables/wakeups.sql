-- Never has a row: a session that rings for something other than publishing locks it, see _ring().
CREATE TABLE durable_notify.lock_rings ();

-- Topics with a notify policy of their own; set_notify_policy() changes them, and the function
-- notify_policy() with them.
CREATE TABLE durable_notify.topic_notify_policy (
    topic  text PRIMARY KEY,
    policy text NOT NULL,
    CONSTRAINT topic_notify_policy_is_always_or_never CHECK (policy IN ('always', 'never')),
    CONSTRAINT topic_notify_policy_topic_is_a_name CHECK (
        pg_catalog.octet_length(topic) BETWEEN 1 AND 255 AND NOT durable_notify._has_controls(topic, true) AND topic !~ '[*>]'
    )
);
