CREATE FUNCTION durable_notify.set_notify_policy(topic text, policy text) RETURNS void
LANGUAGE plpgsql VOLATILE
SET lock_timeout = '5s' SET search_path = pg_catalog, durable_notify, pg_temp AS $function$
#variable_conflict use_variable
DECLARE
    cases text;
BEGIN
    -- Set how what is published to a topic wakes its consumers: 'when_waiting' (only while one waits,
    -- the default), 'always' (for listeners that cannot arm) or 'never' (consumers poll once a second;
    -- for publishers with PREPARE TRANSACTION, which PostgreSQL refuses after a NOTIFY).
    --
    -- For the owner of the schema, and for a few topics: it rewrites notify_policy(), which publishers
    -- evaluate for each message. Consumers learn of it by themselves.
    IF policy IS NULL OR policy NOT IN ('when_waiting', 'always', 'never') THEN
        RAISE EXCEPTION 'invalid policy "%": use when_waiting, always or never', policy USING ERRCODE = '22023';
    END IF;
    IF pg_catalog.current_setting('transaction_isolation') <> 'read committed' THEN
        -- A frozen snapshot would leave out what others have set since.
        RAISE EXCEPTION 'set_notify_policy() must be in a READ COMMITTED transaction'
            USING ERRCODE = '22023', HINT = 'Begin one with BEGIN ISOLATION LEVEL READ COMMITTED. Nothing was changed.';
    END IF;
    PERFORM durable_notify._lock_functions();
    DELETE FROM durable_notify.topic_notify_policy w WHERE w.topic = set_notify_policy.topic;
    IF policy <> 'when_waiting' THEN
        INSERT INTO durable_notify.topic_notify_policy (topic, policy) VALUES (set_notify_policy.topic, policy);
    END IF;
    cases := (SELECT pg_catalog.string_agg(pg_catalog.format('WHEN topic OPERATOR(pg_catalog.=) %L THEN %L::pg_catalog.text', w.topic, w.policy), ' ' ORDER BY w.topic)
                FROM durable_notify.topic_notify_policy w);
    PERFORM durable_notify._rewrite_inlined(
        'durable_notify.notify_policy(text)', cases, $$'when_waiting'::pg_catalog.text$$);
    -- Consumers that sleep by the old policy must learn the new one: ! makes a listener arm again.
    PERFORM pg_catalog.pg_notify(durable_notify.channel(topic), '!');
END
$function$;

CALL durable_notify._grantable('notify_policy', '{publish,insert,observe,read,consume}');
