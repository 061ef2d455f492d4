CREATE FUNCTION durable_notify.ring() RETURNS trigger
LANGUAGE plpgsql AS $function$
BEGIN
    -- Wake the consumers of what a statement has published: one ring a topic, not one a row.
    --
    -- This is the one place where publishing decides to ring; the doorbell goes here.
    PERFORM pg_catalog.pg_notify(durable_notify.channel(fresh.topic), pg_catalog.max(fresh.id)::text),
            pg_catalog.pg_notify('durable_notify', fresh.topic)  -- for those who consume by pattern
       FROM fresh
      GROUP BY fresh.topic;
    RETURN NULL;
END
$function$;

CREATE TRIGGER ring AFTER INSERT ON durable_notify.outbox
    REFERENCING NEW TABLE AS fresh
    FOR EACH STATEMENT EXECUTE FUNCTION durable_notify.ring();
-- Trap: session_replication_role = replica silences a trigger that is not ENABLE ALWAYS.
ALTER TABLE durable_notify.outbox ENABLE ALWAYS TRIGGER ring;
