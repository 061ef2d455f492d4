CREATE FUNCTION durable_notify.channel(topic text) RETURNS text
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE AS $function$
    -- The NOTIFY channel on which a topic's wake-ups arrive.
    --
    -- Never over the 63 bytes a channel may have: what would be longer is hashed. Two topics on
    -- one channel cost a needless wake-up, no more.
    SELECT CASE
        WHEN pg_catalog.octet_length(topic) OPERATOR(pg_catalog.<=) 48
            THEN 'durable_notify:' OPERATOR(pg_catalog.||) topic
        ELSE 'durable_notify#' OPERATOR(pg_catalog.||) pg_catalog.md5(topic)
    END
$function$;
