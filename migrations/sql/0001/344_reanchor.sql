CREATE FUNCTION durable_notify.reanchor(why text DEFAULT NULL)
RETURNS TABLE (group_name text, topic text, undelivered bigint)
LANGUAGE plpgsql VOLATILE
SET lock_timeout = '5s' SET search_path = pg_catalog, durable_notify, pg_temp AS $function$
#variable_conflict use_column
DECLARE
    found record;
    now_snapshot pg_snapshot;
BEGIN
    -- Go on reading where the tables were restored from, or replicated by, another cluster: every
    -- group gets exactly what it had not been handed. Returns how many messages that is. No rows:
    -- there are no groups, or the log has always been here and nothing is to be done.
    --
    -- For the owner of the schema, once all has been copied. It writes the log anew, with everything in
    -- it visible to every snapshot, and keeps publishers and consumers out meanwhile. Bookkeeping of
    -- what was leased or put off needs nothing: it has no transaction ids.
    -- Trap: in a snapshot that was taken before it ends, as by a backup, the log is empty then. docs/restoring.md says so.
    IF pg_catalog.current_setting('transaction_isolation') <> 'read committed' THEN
        RAISE EXCEPTION 'reanchor() must be in a READ COMMITTED transaction'
            USING ERRCODE = '22023', HINT = 'Begin one with BEGIN ISOLATION LEVEL READ COMMITTED. Nothing was changed.';
    END IF;
    PERFORM durable_notify.hold_functions();
    LOCK TABLE durable_notify.removing IN ROW EXCLUSIVE MODE;  -- as keep_all() does, whose ids may be behind
    LOCK TABLE durable_notify.outbox IN ACCESS EXCLUSIVE MODE;
    IF (SELECT pg_catalog.count(*) = 2 AND pg_catalog.bool_and(a.xmin = a.xid) FROM durable_notify.anchor a) THEN
        RETURN;
    END IF;
    PERFORM durable_notify.follow_ids();
    -- Nobody else publishes now: what is published after this is not visible to it.
    now_snapshot := durable_notify.committed_snapshot();
    FOR found IN
        SELECT s AS part, s.topic, g.name FROM durable_notify.subscription s
          JOIN durable_notify.consumer_group g ON g.id = s.group_id
         ORDER BY g.name, s.topic
    LOOP
        undelivered := durable_notify.reanchor_place(found.part, now_snapshot);
        group_name := found.name;
        topic := found.topic;
        PERFORM durable_notify.note_audit('reanchor', group_name, NULL, topic, undelivered, why);
        PERFORM durable_notify.ring(topic, '0');
        RETURN NEXT;
    END LOOP;
    DELETE FROM durable_notify.horizon;
    PERFORM durable_notify.begin_anew();
    -- 2 is the xid of what is frozen. Not an UPDATE, which would leave the log twice as large.
    ALTER TABLE durable_notify.outbox ALTER COLUMN xid TYPE xid8 USING '2'::xid8;
    ALTER TABLE durable_notify.outbox ENABLE ALWAYS TRIGGER published;  -- pg_restore --disable-triggers forgets it
    PERFORM durable_notify.set_closed(0, '3');  -- of the other cluster's transactions
    PERFORM durable_notify.put_copy(NULL, l.copied, NULL) FROM durable_notify.log_layout l WHERE l.copied IS NOT NULL;
    UPDATE durable_notify.log_layout SET closed_below = 0, copied = NULL, copied_by = NULL;
    PERFORM durable_notify.anchor_here();
END
$function$;
