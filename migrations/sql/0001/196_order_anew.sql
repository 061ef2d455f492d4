CREATE FUNCTION durable_notify.order_anew(changed durable_notify.consumer_group) RETURNS void
LANGUAGE plpgsql AS $function$
#variable_conflict use_column
BEGIN
    -- Have what a group has leased or deferred follow its new order. The caller holds its lock.
    UPDATE durable_notify.deferred d
       SET key = durable_notify.order_key(changed.order_by, o.key),
           waits_for = CASE WHEN d.waits_for = 'key' THEN 'retry' ELSE d.waits_for END
      FROM (SELECT w.subscription_id, w.message_id, o.key
              FROM durable_notify.subscription s
              JOIN durable_notify.deferred w ON w.subscription_id = s.id AND w.waits_for IN ('retry', 'key')
             CROSS JOIN LATERAL durable_notify.message_of(s.topic, w.message_id, w.message_id, w.message_id) AS o
             WHERE s.group_id = changed.id) AS o
     WHERE d.subscription_id = o.subscription_id AND d.message_id = o.message_id;
    UPDATE durable_notify.lease l
       SET keys = (SELECT pg_catalog.array_agg(durable_notify.order_key(changed.order_by, o.key) ORDER BY m.place)
                     FROM pg_catalog.unnest(l.ids) WITH ORDINALITY AS m (id, place)
                     LEFT JOIN LATERAL durable_notify.message_of(s.topic, m.id, m.id, m.id) AS o ON true)
      FROM durable_notify.subscription s
     WHERE s.group_id = changed.id AND l.subscription_id = s.id;
END
$function$;
