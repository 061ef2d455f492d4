CREATE FUNCTION durable_notify.unsubscribe(group_name text, topics text[], why text DEFAULT NULL) RETURNS SETOF text
LANGUAGE plpgsql
SET lock_timeout = '5s'
SET search_path = pg_catalog, durable_notify, pg_temp AS $function$
#variable_conflict use_column
DECLARE
    changed integer;
    dropped text[];
    missing text;
    kept record;
BEGIN
    -- End a group's subscriptions to topics: its positions, leases, retries and dead letters there, and
    -- its running replays. A pattern ends those to all topics that match it, and no other pattern of the
    -- group. Returns the topics. The messages stay in the outbox. Consumers that still ask for one of
    -- them end with an error at their next claim; what they settle is refused.
    IF NOT durable_notify._is_owner() THEN
        RETURN QUERY SELECT * FROM durable_notify._unsubscribe_granted(group_name, topics, why);
        RETURN;
    END IF;
    IF pg_catalog.current_setting('transaction_isolation') <> 'read committed' THEN
        -- A frozen snapshot does not see leases that were issued since.
        RAISE EXCEPTION 'unsubscribe() must be in a READ COMMITTED transaction'
            USING ERRCODE = '22023', HINT = 'Nothing was changed.';
    END IF;
    changed := durable_notify._lock_group_and(group_name, 'topics', topics => topics);
    missing := (SELECT pg_catalog.min(COALESCE(t.topic, '')) FROM pg_catalog.unnest(topics) AS t (topic)
                 WHERE t.topic IS NULL OR NOT durable_notify._is_subscribed(group_name, ARRAY[t.topic]));
    IF missing IS NOT NULL THEN
        RAISE EXCEPTION 'group "%" is not subscribed to topic "%"', group_name, missing
            USING ERRCODE = 'DN006', HINT = 'Nothing was changed. durable_notify.groups() lists its topics and patterns.';
    END IF;
    SELECT t.topic, p.pattern INTO kept
      FROM pg_catalog.unnest(topics) AS t (topic)
      JOIN durable_notify.group_pattern p
        ON p.group_id = changed AND p.pattern <> ALL (topics) AND t.topic ~ durable_notify._topic_regex(p.pattern)
     WHERE t.topic !~ '[*>]' ORDER BY 1, 2 LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION 'pattern "%" of group "%" matches topic "%", and would subscribe it again', kept.pattern, group_name, kept.topic
            USING ERRCODE = '22023', HINT = 'Nothing was changed. Unsubscribe the pattern.';
    END IF;
    DELETE FROM durable_notify.group_pattern p WHERE p.group_id = changed AND p.pattern = ANY (topics);
    dropped := ARRAY(
        SELECT s.topic FROM durable_notify.subscription s
         WHERE s.group_id = changed
           AND (s.topic = ANY (topics)
                OR EXISTS (SELECT FROM pg_catalog.unnest(topics) AS t (topic)
                            WHERE t.topic ~ '[*>]' AND s.topic ~ durable_notify._topic_regex(t.topic))
                   AND NOT EXISTS (SELECT FROM durable_notify.group_pattern p
                                    WHERE p.group_id = changed AND s.topic ~ durable_notify._topic_regex(p.pattern)))
         ORDER BY 1);
    PERFORM durable_notify._record_audit('unsubscribe', group_name, pg_catalog.jsonb_build_object('asked', topics), t.topic, NULL, why)
       FROM pg_catalog.unnest(dropped || ARRAY(
            SELECT u.topic FROM pg_catalog.unnest(topics) AS u (topic) WHERE u.topic ~ '[*>]')) AS t (topic);
    PERFORM durable_notify._ring_group(changed);
    PERFORM durable_notify._delete_subscriptions(ARRAY(
        SELECT s.id FROM durable_notify.subscription s WHERE s.group_id = changed AND s.topic = ANY (dropped)));
    RETURN QUERY SELECT pg_catalog.unnest(dropped);
END
$function$;

CREATE FUNCTION durable_notify._delete_subscriptions(subscriptions integer[]) RETURNS void
LANGUAGE plpgsql AS $function$
#variable_conflict use_column
BEGIN
    -- Delete subscriptions with all that hangs on them. The caller has locked the rows: see
    -- _lock_group_and().
    DELETE FROM durable_notify.settlement t USING durable_notify.lease l
     WHERE l.subscription_id = ANY (subscriptions) AND t.token = l.token;
    DELETE FROM durable_notify.lease_deadline h USING durable_notify.lease l
     WHERE l.subscription_id = ANY (subscriptions) AND h.token = l.token;
    DELETE FROM durable_notify.lease l WHERE l.subscription_id = ANY (subscriptions);
    DELETE FROM durable_notify.position p WHERE p.subscription_id = ANY (subscriptions);
    DELETE FROM durable_notify.subscription s WHERE s.id = ANY (subscriptions);
END
$function$;

CALL durable_notify._grantable('unsubscribe', '{consume}', $$_require('consume', topics, group_name)$$);
