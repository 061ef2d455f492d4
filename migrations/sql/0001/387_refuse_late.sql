CREATE FUNCTION durable_notify.refuse_late() RETURNS trigger
LANGUAGE plpgsql
SET search_path = pg_catalog, durable_notify, pg_temp AS $function$
BEGIN
    -- Refuse what is inserted into a closed leaf: no group looks there for what is new. close_leaves() gives it this
    -- trigger, so that it costs publishers nothing.
    --
    -- What logical replication carries over may come: no group reads before reanchor(), which has no leaf be closed.
    -- Trap: its xid may happen to be that of the transaction which brings it.
    IF pg_catalog.current_setting('session_replication_role') = 'replica' THEN
        PERFORM durable_notify.carried_over(NEW.id);
    ELSE
        RAISE EXCEPTION 'id % was drawn too long ago: no group looks for new messages there', NEW.id
            USING ERRCODE = '22023', SCHEMA = 'durable_notify', TABLE = 'outbox', COLUMN = 'id',
                  HINT = 'Leave id out of the INSERT, and the sequence durable_notify.outbox_id_seq at CACHE 1. Nothing was published.';
    END IF;
    RETURN NULL;
END
$function$;
