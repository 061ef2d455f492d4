CREATE FUNCTION durable_notify.last_removed(topic text, OUT removed_id bigint, OUT removed_xid xid8)
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, durable_notify, pg_temp AS $function$
#variable_conflict use_column
BEGIN
    -- The highest id of a topic that retention has removed, and the highest transaction id, of whichever
    -- message; NULL: none is known. A reader that has all up to that id, and whose snapshot is past
    -- that transaction, has lost nothing. What compaction removed does not count: a later message of the
    -- key is there.
    IF NOT durable_notify._is_owner() THEN
        SELECT g.removed_id, g.removed_xid INTO removed_id, removed_xid FROM durable_notify._last_removed_granted(topic) AS g;
        RETURN;
    END IF;
    SELECT p.removed_id, p.removed_xid INTO removed_id, removed_xid
      FROM durable_notify.maintenance_progress p WHERE p.topic = last_removed.topic;
END
$function$;

CREATE FUNCTION durable_notify._record_removed(topic text, last_id bigint, last_xid xid8) RETURNS void
LANGUAGE plpgsql AS $function$
#variable_conflict use_column
BEGIN
    -- Record what retention removes of a topic, in the same transaction. Readers may read at any time: by
    -- the commit they see neither the messages nor less of the record.
    INSERT INTO durable_notify.maintenance_progress AS p (topic, removed_id, removed_xid)
    VALUES (_record_removed.topic, last_id, last_xid)
    ON CONFLICT ON CONSTRAINT maintenance_progress_pkey DO UPDATE
       SET removed_id = GREATEST(p.removed_id, EXCLUDED.removed_id), removed_xid = GREATEST(p.removed_xid, EXCLUDED.removed_xid);
END
$function$;

CALL durable_notify._grantable('last_removed', '{read}', $$_require('read', ARRAY[topic])$$);
