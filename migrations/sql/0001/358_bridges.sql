CREATE FUNCTION durable_notify.bridges() RETURNS TABLE (kind text, source text, target text)
LANGUAGE sql STABLE AS $function$
    -- What is bridged: mirrors (a topic to a channel), watches (a table to a topic) and the
    -- compatibility schema.
    SELECT 'mirror', m.topic, m.channel FROM durable_notify.topic_mirror m
    UNION ALL
    SELECT 'watch', t.tgrelid::regclass::text,
           pg_catalog.convert_from(pg_catalog.substr(t.tgargs, 1, pg_catalog.position(t.tgargs, '\x00'::bytea) - 1), 'UTF8')
      FROM pg_catalog.pg_trigger t
     WHERE t.tgfoid = 'durable_notify.watched()'::regprocedure AND t.tgparentid = 0
       AND pg_catalog.right(t.tgname::text, 9) <> '_truncate'
    UNION ALL
    SELECT 'compat', 'durable_notify_compat.pg_notify', 'durable_notify.notify'
      FROM pg_catalog.pg_namespace n WHERE n.nspname = 'durable_notify_compat'
     ORDER BY 1, 2, 3
$function$;
