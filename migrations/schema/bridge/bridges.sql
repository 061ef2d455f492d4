CREATE FUNCTION durable_notify.bridges() RETURNS TABLE (
    kind text, source text, target text, columns text[], with_old boolean
)
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, durable_notify, pg_temp AS $function$
#variable_conflict use_column
BEGIN
    -- List what is bridged: mirrors (a topic to a channel), captures (a channel to a topic), watches (a
    -- table to a topic) and the compatibility schema. Of a watch: its columns (NULL: all), and whether
    -- updates carry the old values.
    IF NOT durable_notify._is_owner() THEN
        RETURN QUERY SELECT * FROM durable_notify._bridges_granted();
        RETURN;
    END IF;
    RETURN QUERY
    SELECT 'mirror', m.topic, m.channel, NULL::text[], NULL::boolean FROM durable_notify.topic_mirror m
    UNION ALL
    SELECT DISTINCT 'capture', c.channel, c.topic, NULL::text[], NULL::boolean FROM durable_notify.capture c
    UNION ALL
    SELECT 'watch', t.tgrelid::regclass::text, a.words[1],
           durable_notify._watched_columns(t.tgrelid, NULLIF(a.words[2], '')::jsonb), a.words[3]::boolean
      FROM pg_catalog.pg_trigger t
     CROSS JOIN LATERAL (  -- each ends with a zero byte, which no text can have in it
           SELECT pg_catalog.array_agg(pg_catalog.convert_from(pg_catalog.decode(w.hex, 'hex'), pg_catalog.getdatabaseencoding())
                                       ORDER BY w.ord)
             FROM pg_catalog.regexp_matches(pg_catalog.encode(t.tgargs, 'hex'), '((?:(?!00)..)*)00', 'g')
                  WITH ORDINALITY AS m (found, ord)
            CROSS JOIN LATERAL (SELECT m.found[1] AS hex, m.ord) AS w) AS a (words)
     WHERE t.tgfoid = 'durable_notify._watch_trigger()'::regprocedure AND t.tgparentid = 0
       AND pg_catalog.right(t.tgname::text, 9) <> '_truncate'
    UNION ALL
    SELECT 'compat', 'durable_notify_compat.pg_notify', 'durable_notify.notify', NULL, NULL
      FROM pg_catalog.pg_namespace n WHERE n.nspname = 'durable_notify_compat'
     ORDER BY 1, 2, 3;
END
$function$;

CALL durable_notify._grantable('bridges', '{observe}', $$_require('observe')$$);
