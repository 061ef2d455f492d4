CREATE FUNCTION durable_notify.anchor_here() RETURNS void
LANGUAGE plpgsql VOLATILE AS $function$
DECLARE
    new_log uuid := pg_catalog.gen_random_uuid();
BEGIN
    -- Take note that the transaction ids in these tables are this cluster's; see the table anchor.
    TRUNCATE durable_notify.anchor;  -- not DELETE: the order of its rows matters
    BEGIN
        -- A transaction of its own inside this one: its xid is higher than that of what is outside.
        INSERT INTO durable_notify.anchor (place, xid, log_id) VALUES (1, '0', new_log);
        UPDATE durable_notify.anchor SET xid = xmin WHERE place = 1;
    EXCEPTION WHEN division_by_zero THEN
        RAISE;  -- never; the clause makes the block a transaction
    END;
    INSERT INTO durable_notify.anchor (place, xid, log_id) VALUES (2, '0', new_log);
    UPDATE durable_notify.anchor SET xid = xmin WHERE place = 2;
END
$function$;
DO $block$ BEGIN PERFORM durable_notify.anchor_here(); END $block$;
