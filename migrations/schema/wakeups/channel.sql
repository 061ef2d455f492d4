CREATE FUNCTION durable_notify.channel(topic text) RETURNS text
LANGUAGE sql STABLE STRICT PARALLEL SAFE AS $function$
    -- The NOTIFY channel on which a topic's wake-ups arrive.
    --
    -- Never over the 63 bytes a channel may have: a longer name is hashed. Two topics on one channel
    -- cost a needless wake-up, no more. It counts and hashes the name in UTF-8, whatever the database's
    -- encoding is: so do clients that cannot ask.
    SELECT CASE
        WHEN pg_catalog.octet_length(pg_catalog.convert_to(topic, 'UTF8')) OPERATOR(pg_catalog.<=) 48
             AND pg_catalog.octet_length(topic) OPERATOR(pg_catalog.<=) 48
            THEN 'durable_notify:' OPERATOR(pg_catalog.||) topic
        ELSE 'durable_notify#' OPERATOR(pg_catalog.||) pg_catalog.md5(pg_catalog.convert_to(topic, 'UTF8'))
    END
$function$;

CALL durable_notify._grantable('channel', '{publish,insert,observe,read,consume}');
