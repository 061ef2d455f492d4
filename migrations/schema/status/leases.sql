CREATE FUNCTION durable_notify.leases() RETURNS TABLE (
    topic text, group_name text, owner text, claimed_at timestamptz, deadline timestamptz, messages bigint
)
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, durable_notify, pg_temp AS $function$
#variable_conflict use_column
BEGIN
    -- What consumers hold now, of the groups that the caller may see, the oldest first; messages: how
    -- many of a lease are not settled yet. A lease past its deadline is held until another consumer
    -- reclaims it.
    IF NOT durable_notify._is_owner() THEN
        RETURN QUERY SELECT * FROM durable_notify._leases_granted();
        RETURN;
    END IF;
    RETURN QUERY
    SELECT s.topic, g.name, l.owner, l.claimed_at, COALESCE(h.deadline, l.deadline),
           pg_catalog.cardinality(l.ids) - (
               SELECT pg_catalog.count(*) FROM durable_notify.settlement x WHERE x.token = l.token)
      FROM durable_notify.lease l
      JOIN durable_notify.subscription s ON s.id = l.subscription_id
      JOIN durable_notify.consumer_group g ON g.id = s.group_id
      LEFT JOIN durable_notify.lease_deadline h ON h.token = l.token
     ORDER BY l.claimed_at, l.token;
END
$function$;

CALL durable_notify._grantable('leases', '{observe,consume}', $$_require_observe()$$,
    visible => $$_can_observe(f.group_name, f.topic)$$);
