CREATE FUNCTION durable_notify.follow_ids() RETURNS void
LANGUAGE plpgsql VOLATILE AS $function$
DECLARE
    part record;
BEGIN
    -- Have every sequence go on after the ids that are there: logical replication carries rows over and
    -- not the sequences they were numbered by.
    --
    -- One that was never drawn from stands at 1, too, and has yet to draw it.
    FOR part IN
        SELECT c.relname, a.attname,
               pg_catalog.pg_get_serial_sequence(c.oid::regclass::text, a.attname) AS sequence
          FROM pg_catalog.pg_class c
          JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid
         WHERE c.relnamespace = 'durable_notify'::regnamespace AND a.attidentity <> ''
           AND NOT c.relispartition
    LOOP
        EXECUTE pg_catalog.format(
            'SELECT pg_catalog.setval(%L, m.last) FROM %s q,'
            ' (SELECT pg_catalog.max(%I)::bigint AS last FROM durable_notify.%I) m'
            ' WHERE q.last_value < m.last OR q.last_value = m.last AND NOT q.is_called',
            part.sequence, part.sequence, part.attname, part.relname);
    END LOOP;
END
$function$;
