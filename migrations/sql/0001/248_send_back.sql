CREATE FUNCTION durable_notify.send_back(held durable_notify.lease, ids bigint[]) RETURNS void
LANGUAGE plpgsql AS $function$
#variable_conflict use_column
BEGIN
    -- Have messages of a lease wait for one of their key that is retried; it is no attempt of theirs.
    INSERT INTO durable_notify.deferred (subscription_id, message_id, due_at, attempt, waits_for, key)
    SELECT held.subscription_id, m.id, pg_catalog.clock_timestamp(), m.attempt, 'key', m.key
      FROM ROWS FROM (pg_catalog.unnest(held.ids), pg_catalog.unnest(held.attempts), pg_catalog.unnest(held.keys))
           AS m (id, attempt, key)
     WHERE m.id = ANY (send_back.ids)
    ON CONFLICT (subscription_id, message_id) DO NOTHING;
END
$function$;
