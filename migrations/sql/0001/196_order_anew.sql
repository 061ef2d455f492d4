CREATE FUNCTION durable_notify.order_anew(changed durable_notify.consumer_group) RETURNS void
LANGUAGE plpgsql AS $function$
#variable_conflict use_column
BEGIN
    -- Have what waits in deferred follow a group's new order. The caller holds the group's lock and its row
    -- of ordering: there is no row that this cannot see. Leases keep the order they were handed out under.
    UPDATE durable_notify.deferred d
       SET key = durable_notify.order_key(changed.order_by, o.key),
           waits_for = CASE WHEN d.waits_for = 'key' THEN 'retry' ELSE d.waits_for END
      FROM (SELECT w.subscription_id, w.message_id, w.seq, o.key
              FROM durable_notify.subscription s
              JOIN durable_notify.deferred w ON w.subscription_id = s.id AND w.waits_for IN ('retry', 'key')
             CROSS JOIN LATERAL durable_notify.message_of(s.topic, w.message_id, w.message_id, w.message_id) AS o
             WHERE s.group_id = changed.id) AS o
     WHERE d.subscription_id = o.subscription_id AND d.message_id = o.message_id AND d.seq = o.seq;
END
$function$;
