CREATE FUNCTION durable_notify.groups(for_group text DEFAULT NULL) RETURNS TABLE (
    name text, order_by text, exclusive boolean, max_attempts integer, retry_base interval,
    retry_factor double precision, retry_max interval, retry_delays double precision[], on_expiry text,
    park_limit integer, max_in_flight integer, rate_limit double precision, paused_at timestamptz, created_at timestamptz, topics text[], patterns text[],
    active text, active_until timestamptz
)
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, durable_notify, pg_temp AS $function$
#variable_conflict use_column
BEGIN
    -- A group (NULL: all that the caller may see), with its options, topics and patterns, and the active
    -- consumer if it is exclusive.
    IF NOT durable_notify._is_owner() THEN
        RETURN QUERY SELECT * FROM durable_notify._groups_granted(for_group);
        RETURN;
    END IF;
    RETURN QUERY
    SELECT g.name, g.order_by, g.exclusive, g.max_attempts, g.retry_base, g.retry_factor, g.retry_max,
           g.retry_delays, g.on_expiry, g.park_limit, g.max_in_flight, g.rate_limit, g.paused_at, g.created_at,
           ARRAY(SELECT s.topic FROM durable_notify.subscription s WHERE s.group_id = g.id ORDER BY 1),
           ARRAY(SELECT p.pattern FROM durable_notify.group_pattern p WHERE p.group_id = g.id ORDER BY 1),
           a.consumer, a.deadline
      FROM durable_notify.consumer_group g LEFT JOIN durable_notify.active_consumer a ON a.group_id = g.id
     WHERE for_group IS NULL OR g.name = for_group
     ORDER BY g.name;
END
$function$;

CALL durable_notify._grantable('groups', '{observe,consume}', $$_require_observe()$$,
    visible => $$_can_observe(f.name, NULL)$$);
