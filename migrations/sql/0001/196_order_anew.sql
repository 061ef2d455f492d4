CREATE FUNCTION durable_notify.order_anew(changed durable_notify.consumer_group) RETURNS void
LANGUAGE plpgsql AS $function$
#variable_conflict use_column
BEGIN
    -- Have what a group has leased or deferred follow its new order. The caller holds its lock.
    UPDATE durable_notify.deferred d
       SET key = durable_notify.order_key(changed.order_by, o.key),
           waits_for = CASE WHEN d.waits_for = 'key' THEN 'retry' ELSE d.waits_for END
      FROM durable_notify.subscription s, durable_notify.outbox o
     WHERE s.group_id = changed.id AND d.subscription_id = s.id AND d.waits_for IN ('retry', 'key')
       AND o.topic = s.topic AND o.id = d.message_id;
    UPDATE durable_notify.lease l
       SET keys = (SELECT pg_catalog.array_agg(durable_notify.order_key(changed.order_by, o.key) ORDER BY m.place)
                     FROM pg_catalog.unnest(l.ids) WITH ORDINALITY AS m (id, place)
                     LEFT JOIN durable_notify.outbox o ON o.topic = s.topic AND o.id = m.id)
      FROM durable_notify.subscription s
     WHERE s.group_id = changed.id AND l.subscription_id = s.id;
END
$function$;
