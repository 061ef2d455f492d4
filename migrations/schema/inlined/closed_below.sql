CREATE FUNCTION durable_notify._closed_below(seen pg_snapshot) RETURNS bigint
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $function$
    -- Below this id every row that exists, or will ever exist, is decided in a snapshot: no transaction
    -- that wrote one was running then, or began later. So old partitions need not be searched for
    -- stragglers.
    --
    -- Rewritten by _close_partitions(): PostgreSQL inlines it, so it costs a claim nothing.
    SELECT 0::bigint
$function$;
