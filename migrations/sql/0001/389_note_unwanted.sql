CREATE FUNCTION durable_notify.note_unwanted() RETURNS bigint
LANGUAGE plpgsql VOLATILE
SET jit = off
SET search_path = pg_catalog, durable_notify, pg_temp AS $function$
#variable_conflict use_column
DECLARE
    part record;
    noted bigint := 0;
    before bigint[] := '{}';
    seen pg_snapshot;
BEGIN
    -- Find leaves of the log of which every message may go, and note them; returns how many there are that
    -- were not noted before. They are emptied by remove_leaf(), in a later transaction: once every snapshot has seen
    -- that no group wants the messages.
    --
    -- Looking takes long where there are many topics and groups, and keeps no replay waiting.
    -- A replay leaves a row in removing, by which remove_leaf() knows that a note does not count: it goes here,
    -- with the notes, and before what is looked at. Trap: not after. What is committed in between is in neither.
    IF NOT durable_notify.hold_leaves() THEN
        RETURN 0;
    END IF;
    DELETE FROM durable_notify.removing;
    IF FOUND THEN
        WITH gone AS (DELETE FROM durable_notify.unwanted_leaf u RETURNING u.first_id)
        SELECT COALESCE(pg_catalog.array_agg(g.first_id), '{}') INTO before FROM gone g;
    END IF;
    DELETE FROM durable_notify.unwanted_leaf u
     WHERE u.first_id > 0 AND NOT EXISTS (SELECT FROM durable_notify.leaves() l WHERE l.first_id = u.first_id)
        OR u.first_id = 0 AND durable_notify.has_appeared('durable_notify.outbox_default', u.seen);
    FOR part IN
        SELECT l.leaf, l.first_id FROM durable_notify.leaves() l
         WHERE l.next_id <= (SELECT y.closed_below FROM durable_notify.log_layout y)
         UNION ALL SELECT 'durable_notify.outbox_default'::regclass, 0
    LOOP
        CONTINUE WHEN EXISTS (SELECT FROM durable_notify.unwanted_leaf u WHERE u.first_id = part.first_id)
                      OR pg_catalog.pg_relation_size(part.leaf) = 0;
        seen := durable_notify.committed_snapshot();
        CONTINUE WHEN NOT durable_notify.leaf_goes(part.leaf);
        INSERT INTO durable_notify.unwanted_leaf (first_id, seen, since)
        VALUES (part.first_id, seen, pg_catalog.pg_current_xact_id());
        -- Trap: what is noted once more is no progress. Where messages are redelivered all the time, a round of
        -- maintenance would not come to an end, nor to what is removed row by row.
        noted := noted + (part.first_id <> ALL (before))::integer;
    END LOOP;
    RETURN noted;
END
$function$;
