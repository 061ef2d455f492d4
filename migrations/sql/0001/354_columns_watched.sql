CREATE FUNCTION durable_notify.columns_watched(changed regclass, chosen jsonb) RETURNS text[]
LANGUAGE sql STABLE STRICT
SET search_path = pg_catalog, durable_notify, pg_temp AS $function$
    -- The names now of the columns that watch() was told: {"table", "numbers", "names"} as of then.
    --
    -- By their numbers, which survive that a column is renamed, where the table is still that table, or
    -- a partition of it. Else by the names: where a dump was restored, another table has been made, in
    -- which the numbers may stand for other columns.
    SELECT CASE WHEN same.it_is THEN ARRAY(
                SELECT a.attname::text FROM pg_catalog.pg_attribute a
                 WHERE a.attrelid = (chosen ->> 'table')::oid AND NOT a.attisdropped
                   AND chosen -> 'numbers' @> pg_catalog.to_jsonb(a.attnum)
                 ORDER BY a.attnum)
           ELSE ARRAY(SELECT pg_catalog.jsonb_array_elements_text(chosen -> 'names')) END
      FROM (SELECT (chosen ->> 'table')::oid = changed::oid
                OR (chosen ->> 'table')::oid IN (SELECT pg_catalog.pg_partition_ancestors(changed)::oid)) AS same (it_is)
$function$;
