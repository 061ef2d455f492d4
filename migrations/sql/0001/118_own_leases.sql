CREATE FUNCTION durable_notify.own_leases(tokens bigint[]) RETURNS bigint[]
LANGUAGE plpgsql VOLATILE
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off AS $function$
BEGIN
    -- Leaves out of some tokens those of leases that the caller may not consume: as if they were no more.
    -- By index: in a SERIALIZABLE transaction a scan of all leases would conflict with each other settle.
    RETURN ARRAY(
        SELECT t.token FROM pg_catalog.unnest(tokens) AS t (token)
          LEFT JOIN durable_notify.lease l ON l.token = t.token
          LEFT JOIN durable_notify.subscription s ON s.id = l.subscription_id
          LEFT JOIN durable_notify.consumer_group g ON g.id = s.group_id
         WHERE l.token IS NULL OR durable_notify.granted('consume', s.topic, g.name));
END
$function$;
