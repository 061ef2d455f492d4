CREATE FUNCTION durable_notify.keys_of(held durable_notify.lease, order_by text) RETURNS text[]
LANGUAGE plpgsql STABLE AS $function$
#variable_conflict use_column
BEGIN
    -- What a lease's messages are kept in order by under an order; NULL: by nothing. Under the one that it
    -- was handed out under this stands in the lease; after configure() it is looked up.
    IF held.order_by = keys_of.order_by THEN
        RETURN held.keys;
    END IF;
    RETURN (
        SELECT pg_catalog.array_agg(durable_notify.order_key(keys_of.order_by, o.key) ORDER BY m.place)
          FROM durable_notify.subscription s
         CROSS JOIN LATERAL pg_catalog.unnest(held.ids) WITH ORDINALITY AS m (id, place)
          LEFT JOIN LATERAL durable_notify.message_of(s.topic, m.id, m.id, m.id) AS o ON true
         WHERE s.id = held.subscription_id);
END
$function$;
