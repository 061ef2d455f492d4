CREATE FUNCTION durable_notify.topic_of_channel(channel text) RETURNS text
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE AS $function$
    -- The topic that what is sent to a channel with notify() is published to: of the same name, with
    -- what a topic cannot have in it (white space, control characters, *, >) and % as %XX.
    SELECT CASE WHEN channel !~ '[\u0001-\u0020\u007f-\u00a0*>%]' THEN channel ELSE (
        SELECT pg_catalog.string_agg(
                   CASE WHEN c.letter ~ '[\u0001-\u0020\u007f-\u00a0*>%]'
                        THEN pg_catalog.regexp_replace(
                            pg_catalog.upper(pg_catalog.encode(pg_catalog.convert_to(c.letter, 'UTF8'), 'hex')), '(..)', '%\1', 'g')
                        ELSE c.letter END, '' ORDER BY c.place)
          FROM pg_catalog.regexp_split_to_table(channel, '') WITH ORDINALITY AS c (letter, place)) END
$function$;
