CREATE FUNCTION durable_notify._analyze_stale() RETURNS bigint
LANGUAGE plpgsql
SET lock_timeout = '50ms'
SET search_path = pg_catalog, durable_notify, pg_temp AS $function$
DECLARE
    stale regclass;
BEGIN
    -- Analyze the one of the small tables whose statistics are most out of date, if more than 1,000
    -- rows and a fifth of them have changed since; returns 1, or 0 if there is none. Autovacuum does
    -- the same, if it is on and keeps up. ANALYZE locks no reader or writer out.
    SELECT t.relid::regclass INTO stale
      FROM pg_catalog.pg_stat_user_tables t JOIN pg_catalog.pg_class c ON c.oid = t.relid
     WHERE t.schemaname = 'durable_notify' AND c.relkind = 'r' AND NOT c.relispartition AND c.relname !~ '^outbox'
       AND t.n_mod_since_analyze > 1000 + 0.2 * GREATEST(t.n_live_tup, 0)
     ORDER BY t.n_mod_since_analyze DESC LIMIT 1;
    IF stale IS NULL THEN
        RETURN 0;
    END IF;
    EXECUTE pg_catalog.format('ANALYZE %s', stale);
    RETURN 1;
EXCEPTION WHEN lock_not_available THEN
    RETURN 0;  -- autovacuum analyzes it now
END
$function$;
