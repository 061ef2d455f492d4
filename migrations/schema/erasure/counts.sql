CREATE FUNCTION durable_notify._about_messages(topic text, ids bigint[]) RETURNS jsonb
LANGUAGE plpgsql STABLE
SET enable_seqscan = off AS $function$
#variable_conflict use_column
BEGIN
    -- How much is kept of some messages of a topic, by place; see erase_batch().
    RETURN durable_notify._nonzero('messages', pg_catalog.cardinality(ids))
        || durable_notify._nonzero('waiting', (
               SELECT pg_catalog.count(DISTINCT (d.subscription_id, d.message_id))
                 FROM durable_notify.subscription s JOIN durable_notify.deferred d ON d.subscription_id = s.id
                WHERE s.topic = _about_messages.topic AND d.message_id = ANY (ids)))
        || durable_notify._nonzero('dedup_keys', (
               SELECT pg_catalog.count(*) FROM durable_notify.dedup d
                WHERE d.topic = _about_messages.topic AND d.message_id = ANY (ids)))
        || durable_notify._nonzero('once', (
               SELECT pg_catalog.count(*)
                 FROM durable_notify.subscription s JOIN durable_notify.processed_message p ON p.group_id = s.group_id
                WHERE s.topic = _about_messages.topic AND p.message_id = ANY (ids)))
        || durable_notify._nonzero('leased', durable_notify._leased_of(topic, ids))
        || durable_notify._nonzero('archiving', durable_notify._is_archiving(topic, ids)::integer);
END
$function$;

CREATE FUNCTION durable_notify._rest_of_key(topic text, key text) RETURNS jsonb
LANGUAGE sql STABLE AS $function$
    -- What is kept of a key in a topic beside the outbox, by place; see erase_batch().
    SELECT durable_notify._nonzero('dead_letters', (
               SELECT pg_catalog.count(*) FROM durable_notify.dead_letter d
                WHERE d.topic = _rest_of_key.topic AND d.key = _rest_of_key.key))
        || durable_notify._nonzero('compacted_keys', (
               SELECT pg_catalog.count(*) FROM durable_notify.compacted_key k
                WHERE k.topic = _rest_of_key.topic AND k.key = _rest_of_key.key))
        || durable_notify._nonzero('replays', (
               SELECT pg_catalog.count(*) FROM durable_notify.subscription s
                 JOIN durable_notify.replay_job j ON j.subscription_id = s.id
                WHERE s.topic = _rest_of_key.topic AND j.keys @> ARRAY[_rest_of_key.key]))
$function$;

CREATE FUNCTION durable_notify._leased_of(topic text, ids bigint[]) RETURNS bigint
LANGUAGE sql STABLE AS $function$
    -- How many of some messages consumers hold, counted for each group.
    SELECT pg_catalog.count(*)
      FROM durable_notify.subscription s
      JOIN durable_notify.lease l ON l.subscription_id = s.id AND l.ids && _leased_of.ids
     CROSS JOIN LATERAL pg_catalog.unnest(l.ids) AS m (id)
     WHERE s.topic = _leased_of.topic AND m.id = ANY (_leased_of.ids)
       AND NOT EXISTS (SELECT FROM durable_notify.settlement t WHERE t.token = l.token AND t.message_id = m.id)
$function$;

CREATE FUNCTION durable_notify._is_archiving(topic text, ids bigint[]) RETURNS boolean
LANGUAGE sql STABLE AS $function$
    -- Return whether one of some messages is in the stretch of a topic that is being archived.
    SELECT EXISTS (
        SELECT FROM durable_notify.maintenance_progress p CROSS JOIN LATERAL pg_catalog.unnest(ids) AS m (id)
         WHERE p.topic = _is_archiving.topic AND m.id >= p.archived_below AND m.id < p.archiving_below)
$function$;
