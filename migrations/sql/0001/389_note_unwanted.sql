CREATE FUNCTION durable_notify.note_unwanted() RETURNS bigint
LANGUAGE plpgsql VOLATILE
SET jit = off
SET search_path = pg_catalog, durable_notify, pg_temp AS $function$
DECLARE
    part record;
    noted bigint := 0;
    last bigint;
BEGIN
    -- Find leaves of the log of which every message may go, and note them; returns how many. They are emptied
    -- by remove_leaf(), in a later transaction: once every snapshot has seen that nobody wants the messages.
    --
    -- Under hold_removing(): nobody has messages come again meanwhile. Who has done so since leaves were noted has
    -- left a row in removing: these leaves are looked at once more, and waited for from now on.
    IF NOT durable_notify.hold_removing() THEN
        RETURN 0;
    END IF;
    DELETE FROM durable_notify.removing;
    IF FOUND THEN
        DELETE FROM durable_notify.unwanted_leaf;
    END IF;
    DELETE FROM durable_notify.unwanted_leaf u
     WHERE u.first_id > 0 AND NOT EXISTS (SELECT FROM durable_notify.leaves() l WHERE l.first_id = u.first_id);
    FOR part IN
        SELECT l.leaf, l.first_id FROM durable_notify.leaves() l
         WHERE l.next_id <= (SELECT y.closed_below FROM durable_notify.log_layout y)
         UNION ALL SELECT 'durable_notify.outbox_default'::regclass, 0
    LOOP
        CONTINUE WHEN part.first_id > 0 AND EXISTS (SELECT FROM durable_notify.unwanted_leaf u WHERE u.first_id = part.first_id)
                      OR pg_catalog.pg_relation_size(part.leaf) = 0;
        last := COALESCE((SELECT pg_catalog.max(t.last_id) FROM durable_notify.topics_of_leaf(part.leaf) t), 0);
        CONTINUE WHEN EXISTS (SELECT FROM durable_notify.unwanted_leaf u WHERE u.first_id = part.first_id AND u.last_id >= last)
                      OR NOT durable_notify.leaf_goes(part.leaf);
        INSERT INTO durable_notify.unwanted_leaf AS u (first_id, last_id, since)
        VALUES (part.first_id, last, pg_catalog.pg_current_xact_id())
        ON CONFLICT ON CONSTRAINT unwanted_leaf_pkey DO UPDATE
           SET last_id = EXCLUDED.last_id, since = EXCLUDED.since, noted_at = EXCLUDED.noted_at;
        noted := noted + 1;
    END LOOP;
    RETURN noted;
END
$function$;
