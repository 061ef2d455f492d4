CREATE FUNCTION durable_notify.redrive(
    group_name text, topic text DEFAULT NULL, ids bigint[] DEFAULT NULL, key text DEFAULT NULL,
    error_type text DEFAULT NULL, since timestamptz DEFAULT NULL, until timestamptz DEFAULT NULL,
    everything boolean DEFAULT false, why text DEFAULT NULL
) RETURNS bigint
LANGUAGE plpgsql
SET lock_timeout = '5s' SET search_path = pg_catalog, durable_notify, pg_temp AS $function$
#variable_conflict use_column
DECLARE
    taken durable_notify.dead_letter[];
    gone bigint[];
BEGIN
    -- Redeliver dead letters to the group that gave them up, as first attempts; returns how many. Those
    -- that match every condition given. In a group that keeps order they hold back their keys until
    -- they are handled.
    IF NOT durable_notify._is_owner() THEN
        RETURN durable_notify._redrive_granted(group_name, topic, ids, key, error_type, since, until, everything, why);
    END IF;
    IF pg_catalog.current_setting('transaction_isolation') <> 'read committed' THEN
        -- A frozen snapshot shows messages that have been removed from the outbox since, and an order
        -- that is not the group's any more: a message redelivered by that would never arrive.
        RAISE EXCEPTION 'redrive() must be in a READ COMMITTED transaction'
            USING ERRCODE = '22023', HINT = 'Nothing was changed.';
    END IF;
    taken := ARRAY(SELECT t FROM durable_notify._delete_dead_letters(
        'redrive', group_name, topic, ids, key, error_type, since, until, everything, why) t);
    gone := ARRAY(SELECT t.message_id FROM pg_catalog.unnest(taken) AS t
                   WHERE NOT EXISTS (SELECT FROM durable_notify._message(t.topic, t.message_id, t.message_id, t.message_id)));
    IF pg_catalog.cardinality(gone) > 0 THEN
        RAISE EXCEPTION 'messages % are not in the outbox any more', gone
            USING ERRCODE = 'DN008', HINT = 'Their dead letters hold them whole: publish them again, then discard these.';
    END IF;
    INSERT INTO durable_notify.deferred (subscription_id, message_id, due_at, attempt, key)
    SELECT DISTINCT t.subscription_id, t.message_id, pg_catalog.clock_timestamp(), 1,
           durable_notify._ordering_key(g.order_by, t.key)
      FROM pg_catalog.unnest(taken) AS t
      JOIN durable_notify.subscription s ON s.id = t.subscription_id
      JOIN durable_notify.consumer_group g ON g.id = s.group_id;
    PERFORM durable_notify._ring(u.topic, '0')
       FROM (SELECT DISTINCT t.topic FROM pg_catalog.unnest(taken) AS t) AS u;
    RETURN (SELECT pg_catalog.count(DISTINCT t.message_id) FROM pg_catalog.unnest(taken) AS t);
END
$function$;

CALL durable_notify._grantable('redrive', '{consume}', $$_require('consume', durable_notify._topics_or_all(group_name, topic), group_name)$$);
