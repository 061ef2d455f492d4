CREATE FUNCTION durable_notify.partitions() RETURNS TABLE (name regclass, first_id bigint, next_id bigint)
LANGUAGE sql STABLE
SET search_path = pg_catalog, durable_notify, pg_temp AS $function$
    -- The partitions of the outbox, the lowest ids first: each holds ids from first_id up to next_id,
    -- without it. Without outbox_default, which holds the rows that have no partition.
    SELECT c.oid::regclass, bounds[1]::bigint, bounds[2]::bigint
      FROM pg_catalog.pg_inherits i
      JOIN pg_catalog.pg_class c ON c.oid = i.inhrelid
     CROSS JOIN LATERAL pg_catalog.regexp_match(
           pg_catalog.pg_get_expr(c.relpartbound, c.oid), E'FROM \\(''(\\d+)''\\) TO \\(''(\\d+)''\\)') AS bounds
     WHERE i.inhparent = 'durable_notify.outbox'::regclass AND bounds IS NOT NULL
     ORDER BY 2
$function$;
