CREATE FUNCTION durable_notify.blocking_publishers(group_name text) RETURNS TABLE (
    pid integer, database text, prepared text, started_at timestamptz, query_started_at timestamptz,
    state text, query text
)
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, durable_notify, pg_temp AS $function$
#variable_conflict use_column
DECLARE
    calling_role name;
BEGIN
    -- The publishers in flight that a strict group waits for: transactions that may yet commit an id
    -- lower than what others have committed since. A prepared transaction is shown by its name; the
    -- query of another role only with the rights of pg_read_all_stats.
    IF NOT durable_notify._is_owner() THEN
        RETURN QUERY SELECT * FROM durable_notify._blocking_publishers_granted(group_name);
        RETURN;
    END IF;
    calling_role := durable_notify._calling_role();
    -- Trap: with the owner's rights pg_stat_activity shows what the owner may see. The caller's rights
    -- count.
    RETURN QUERY
    SELECT a.pid, pg_catalog.current_database()::text, p.gid, COALESCE(a.xact_start, p.prepared),
           a.query_start, a.state,
           CASE WHEN pg_catalog.pg_has_role(calling_role, 'pg_read_all_stats', 'USAGE')
                     OR pg_catalog.pg_has_role(calling_role, a.usesysid, 'USAGE') THEN a.query END
      FROM durable_notify.consumer_group g
     CROSS JOIN LATERAL pg_catalog.unnest(durable_notify._open_publishers()) AS w (xid)
      LEFT JOIN pg_catalog.pg_stat_activity a ON a.backend_xid = w.xid
      LEFT JOIN pg_catalog.pg_prepared_xacts p ON p.transaction = w.xid
     WHERE g.name = group_name AND g.order_by = 'strict' AND (a.pid IS NOT NULL OR p.gid IS NOT NULL)
     ORDER BY 4;
END
$function$;

CALL durable_notify._grantable('blocking_publishers', '{observe,consume}', $$_require_observe(group_name)$$);
