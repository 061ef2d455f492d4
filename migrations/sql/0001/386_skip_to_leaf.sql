CREATE FUNCTION durable_notify.skip_to_leaf(first_id bigint) RETURNS void
LANGUAGE plpgsql VOLATILE AS $function$
BEGIN
    -- Have ids go on where a leaf begins that is far ahead of them; the ids in between are never drawn.
    --
    -- Trap: setval() could go back, and have ids drawn twice, where others draw meanwhile. ALTER SEQUENCE
    -- has a lock that keeps them out, once all who have drawn have ended; the first is for the lock alone.
    ALTER SEQUENCE durable_notify.outbox_id_seq INCREMENT 1;
    IF COALESCE(pg_catalog.pg_sequence_last_value('durable_notify.outbox_id_seq'), 0) < first_id - 1 THEN
        EXECUTE pg_catalog.format('ALTER SEQUENCE durable_notify.outbox_id_seq RESTART %s', first_id - 1);
        PERFORM pg_catalog.nextval('durable_notify.outbox_id_seq');
    END IF;
END
$function$;
