CREATE FUNCTION durable_notify.mirror_of(topic text) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $function$
    -- The channel that a topic's messages are also sent to, raw; NULL: none, as for most.
    --
    -- Rewritten by set_mirror(), so that it costs a publisher nothing; see notify_policy().
    SELECT NULL::pg_catalog.text
$function$;
