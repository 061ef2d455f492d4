CREATE FUNCTION durable_notify.send_back(
    held durable_notify.lease, options durable_notify.consumer_group, ids bigint[]
) RETURNS void
LANGUAGE plpgsql AS $function$
#variable_conflict use_column
BEGIN
    -- Have messages of a lease wait for one of their key that is retried; it is no attempt of theirs.
    INSERT INTO durable_notify.deferred (subscription_id, message_id, due_at, attempt, waits_for, key)
    SELECT held.subscription_id, m.id, pg_catalog.clock_timestamp(), m.attempt,
           CASE WHEN m.key IS NULL THEN 'retry' ELSE 'key' END, m.key
      FROM ROWS FROM (pg_catalog.unnest(held.ids), pg_catalog.unnest(held.attempts),
                      pg_catalog.unnest(durable_notify.keys_of(held, options.order_by)))
           AS m (id, attempt, key)
     WHERE m.id = ANY (send_back.ids);
END
$function$;
