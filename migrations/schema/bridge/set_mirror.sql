CREATE FUNCTION durable_notify.set_mirror(topic text, channel text) RETURNS text
LANGUAGE plpgsql VOLATILE
SET lock_timeout = '5s' SET search_path = pg_catalog, durable_notify, pg_temp AS $function$
#variable_conflict use_variable
DECLARE
    before text;
    cases text;
BEGIN
    -- From now on, also send what is published to a topic to a channel, as the raw payload, for
    -- programs that only LISTEN; NULL ends it. Every message of such a topic notifies, so publishers
    -- pay what NOTIFY costs. If a payload is too long for NOTIFY, the message's id is sent. Returns the
    -- channel that the topic had before.
    --
    -- For the owner of the schema, and for a few topics: it rewrites mirror_of().
    IF pg_catalog.current_setting('transaction_isolation') <> 'read committed' THEN
        RAISE EXCEPTION 'set_mirror() must be in a READ COMMITTED transaction'
            USING ERRCODE = '22023', HINT = 'Begin one with BEGIN ISOLATION LEVEL READ COMMITTED. Nothing was changed.';
    END IF;
    IF channel = 'durable_notify' OR channel ~ '^durable_notify[:#?]' THEN
        RAISE EXCEPTION 'channel "%" is reserved: this library uses it for wake-ups', channel
            USING ERRCODE = '22023', HINT = 'Choose another channel. Nothing was changed.';
    END IF;
    IF pg_catalog.octet_length(channel) NOT BETWEEN 1 AND 63 THEN
        RAISE EXCEPTION 'a channel''s name must have 1 to 63 bytes, not %', pg_catalog.octet_length(channel)
            USING ERRCODE = '22023', HINT = 'Nothing was changed.';
    END IF;
    PERFORM durable_notify._lock_functions();
    DELETE FROM durable_notify.topic_mirror m WHERE m.topic = set_mirror.topic RETURNING m.channel INTO before;
    IF channel IS NOT NULL THEN
        INSERT INTO durable_notify.topic_mirror (topic, channel) VALUES (set_mirror.topic, set_mirror.channel);
    END IF;
    cases := (SELECT pg_catalog.string_agg(pg_catalog.format(
                  'WHEN topic OPERATOR(pg_catalog.=) %L THEN %L::pg_catalog.text', m.topic, m.channel), ' ' ORDER BY m.topic)
                FROM durable_notify.topic_mirror m);
    PERFORM durable_notify._rewrite_inlined('durable_notify.mirror_of(text)', cases, 'NULL::pg_catalog.text');
    RETURN before;
EXCEPTION
    WHEN check_violation OR not_null_violation THEN
        RAISE EXCEPTION 'invalid topic name "%"', topic
            USING ERRCODE = '22023', HINT = 'A topic has 1 to 255 bytes, no white space, control characters, * or >. Nothing was changed.';
END
$function$;

CALL durable_notify._grantable('mirror_of', '{insert}');
