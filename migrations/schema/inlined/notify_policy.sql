CREATE FUNCTION durable_notify.notify_policy(topic text) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $function$
    -- How what is published to a topic wakes its consumers: 'when_waiting' (only while one waits),
    -- 'always' or 'never' (they poll).
    --
    -- Rewritten by set_notify_policy(), so that it costs a publisher nothing: PostgreSQL inlines it
    -- when it plans an expression. A look into a table took a tenth of the rate.
    SELECT 'when_waiting'::pg_catalog.text
$function$;
