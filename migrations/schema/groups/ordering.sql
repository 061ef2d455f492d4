CREATE FUNCTION durable_notify._ordering_key(order_by text, key text) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $function$
    -- What a group keeps in order by: nothing (NULL), a message's key, or in a strict group one key for
    -- all messages, which no message can have.
    SELECT CASE order_by WHEN 'key' THEN key WHEN 'strict' THEN '' END
$function$;

CREATE FUNCTION durable_notify._lease_keys(lease durable_notify.lease, order_by text) RETURNS text[]
LANGUAGE plpgsql STABLE AS $function$
#variable_conflict use_column
BEGIN
    -- What a lease's messages are kept in order by under an order; NULL: by nothing. The lease holds
    -- this for the order under which it was delivered; after configure() it is looked up.
    IF lease.order_by = _lease_keys.order_by THEN
        RETURN lease.keys;
    END IF;
    RETURN (
        SELECT pg_catalog.array_agg(durable_notify._ordering_key(_lease_keys.order_by, o.key) ORDER BY m.ord)
          FROM durable_notify.subscription s
         CROSS JOIN LATERAL pg_catalog.unnest(lease.ids) WITH ORDINALITY AS m (id, ord)
          LEFT JOIN LATERAL durable_notify._message(s.topic, m.id, m.id, m.id) AS o ON true
         WHERE s.id = lease.subscription_id);
END
$function$;

CREATE FUNCTION durable_notify._lock_ordering(subscription_id integer) RETURNS durable_notify.consumer_group
LANGUAGE plpgsql AS $function$
#variable_conflict use_column
DECLARE
    options durable_notify.consumer_group;
BEGIN
    -- The group of a subscription, whose order_by stays as it is until the transaction ends. A session
    -- that writes keys into deferred calls this first; see the table ordering. If the snapshot is older
    -- than a change of the order, this fails with a serialization failure.
    PERFORM FROM durable_notify.ordering o JOIN durable_notify.subscription s ON s.group_id = o.group_id
      WHERE s.id = _lock_ordering.subscription_id FOR SHARE OF o;
    -- A new statement: it sees what was committed before the row was locked.
    SELECT g.* INTO STRICT options
      FROM durable_notify.subscription s JOIN durable_notify.consumer_group g ON g.id = s.group_id
     WHERE s.id = _lock_ordering.subscription_id;
    RETURN options;
END
$function$;
