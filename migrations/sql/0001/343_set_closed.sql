CREATE FUNCTION durable_notify.set_closed(below bigint, since xid8) RETURNS void
LANGUAGE plpgsql VOLATILE AS $function$
BEGIN
    -- Write closed_below() anew: leaves with ids below are closed, for snapshots taken after a transaction.
    EXECUTE pg_catalog.format(
        'CREATE OR REPLACE FUNCTION durable_notify.closed_below(seen pg_snapshot) RETURNS bigint'
        ' LANGUAGE sql IMMUTABLE PARALLEL SAFE AS %L',
        (SELECT pg_catalog.regexp_replace(p.prosrc, 'SELECT .*$', '') FROM pg_catalog.pg_proc p
          WHERE p.oid = 'durable_notify.closed_below(pg_snapshot)'::regprocedure)  -- its documentation
        || CASE WHEN below = 0 THEN E'SELECT 0::bigint\n' ELSE pg_catalog.format(
               E'SELECT CASE WHEN pg_catalog.pg_snapshot_xmax(seen) OPERATOR(pg_catalog.>) ''%s''::pg_catalog.xid8'
               ' THEN %s::bigint ELSE 0::bigint END\n', since, below) END);
END
$function$;
