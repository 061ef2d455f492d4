CREATE FUNCTION durable_notify._closed_below(seen pg_snapshot) RETURNS bigint
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $function$
    -- Below this id every row there is, or will ever be, is decided in a snapshot: no transaction that
    -- wrote one was running then, or came later. So old leaves need not be searched for stragglers.
    --
    -- Written anew by _close_partitions(): put in place of its call, it costs a claim nothing.
    SELECT 0::bigint
$function$;
