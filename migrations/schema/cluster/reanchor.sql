CREATE FUNCTION durable_notify.reanchor(why text DEFAULT NULL)
RETURNS TABLE (group_name text, topic text, unread bigint)
LANGUAGE plpgsql VOLATILE
SET lock_timeout = '5s' SET search_path = pg_catalog, durable_notify, pg_temp AS $function$
#variable_conflict use_column
DECLARE
    found record;
    now_snapshot pg_snapshot;
BEGIN
    -- Make the outbox readable after the tables were restored from, or replicated by, another cluster:
    -- each group gets exactly what had not been delivered to it. Returns how many messages that is. No
    -- rows: there are no groups, or the outbox has always been here and there is nothing to do.
    --
    -- For the owner of the schema, once everything has been copied. It rewrites the outbox, with every
    -- row in it visible to every snapshot, and keeps publishers and consumers out meanwhile. What
    -- records leases and deferred messages needs no change: it has no transaction ids.
    -- Trap: in a snapshot that was taken before it ends, as by a backup, the outbox is then empty.
    -- docs/restoring.md says so.
    IF pg_catalog.current_setting('transaction_isolation') <> 'read committed' THEN
        RAISE EXCEPTION 'reanchor() must be in a READ COMMITTED transaction'
            USING ERRCODE = '22023', HINT = 'Begin one with BEGIN ISOLATION LEVEL READ COMMITTED. Nothing was changed.';
    END IF;
    PERFORM durable_notify._lock_functions();
    LOCK TABLE durable_notify.lock_removals IN ROW EXCLUSIVE MODE;  -- as _block_removal() does, whose ids may lag behind
    LOCK TABLE durable_notify.outbox IN ACCESS EXCLUSIVE MODE;
    IF (SELECT pg_catalog.count(*) = 2 AND pg_catalog.bool_and(a.xmin = a.xid) FROM durable_notify.cluster_identity a) THEN
        RETURN;
    END IF;
    PERFORM durable_notify._sync_sequences();
    -- No session publishes now: what is published after this is not visible to it.
    now_snapshot := durable_notify._committed_snapshot();
    FOR found IN
        SELECT s AS subscription, s.topic, g.name FROM durable_notify.subscription s
          JOIN durable_notify.consumer_group g ON g.id = s.group_id
         ORDER BY g.name, s.topic
    LOOP
        unread := durable_notify._reanchor_position(found.subscription, now_snapshot);
        group_name := found.name;
        topic := found.topic;
        PERFORM durable_notify._record_audit('reanchor', group_name, NULL, topic, unread, why);
        PERFORM durable_notify._ring(topic, '0');
        RETURN NEXT;
    END LOOP;
    PERFORM durable_notify._reset_maintenance();
    -- 2 is the xid of what is frozen. Not an UPDATE, which would leave the outbox twice as large.
    ALTER TABLE durable_notify.outbox ALTER COLUMN xid TYPE xid8 USING '2'::xid8;
    ALTER TABLE durable_notify.outbox ENABLE ALWAYS TRIGGER outbox_after_insert;  -- pg_restore --disable-triggers forgets it
    PERFORM durable_notify._set_closed_below(0, '3');  -- of the other cluster's transactions
    PERFORM durable_notify._swap_partition(NULL, l.copied, NULL) FROM durable_notify.partition_settings l WHERE l.copied IS NOT NULL;
    UPDATE durable_notify.partition_settings SET closed_below = 0, copied = NULL, copied_by = NULL;
    PERFORM durable_notify._record_cluster();
END
$function$;

CREATE FUNCTION durable_notify._reanchor_position(subscription durable_notify.subscription, now_snapshot pg_snapshot) RETURNS bigint
LANGUAGE plpgsql AS $function$
#variable_conflict use_column
DECLARE
    old_pos durable_notify.position;
    pos durable_notify.position;
    put_off bigint;
BEGIN
    -- Save a subscription's position without the other cluster's snapshots; returns how many messages
    -- have not been delivered to it. reanchor() makes every existing message visible to now_snapshot.
    --
    -- No message above both h0 and p has been delivered: reading continues there. Of those below, what
    -- was not visible to the old snapshots was in flight when it was copied: these few are deferred,
    -- and delivered first. The snapshots are compared with xids of their own cluster, which is plain
    -- arithmetic; what was published here since has an id above them.
    SELECT * INTO old_pos FROM durable_notify.position p
     WHERE p.subscription_id = subscription.id ORDER BY p.seq DESC LIMIT 1;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'the copy is incomplete: a group consumes topic "%" and has no position in it', subscription.topic
            USING ERRCODE = 'object_not_in_prerequisite_state',
                  HINT = 'Copy all tables of the schema durable_notify. Nothing was changed.';
    END IF;
    pos := old_pos;
    pos.s0 := now_snapshot;
    pos.h0 := GREATEST(old_pos.h0, old_pos.p);
    pos.s1 := NULL;
    pos.h1 := NULL;
    pos.p := 0;
    INSERT INTO durable_notify.deferred (subscription_id, message_id, due_at, attempt, reason, key)
    SELECT subscription.id, o.id, pg_catalog.clock_timestamp(), 1, CASE WHEN o.key IS NULL THEN 'retry' ELSE 'key' END, o.key
      FROM (SELECT o.id, o.xid, durable_notify._ordering_key(g.order_by, o.key) AS key
              FROM durable_notify.outbox o
              JOIN durable_notify.consumer_group g ON g.id = subscription.group_id
             WHERE o.topic = subscription.topic AND o.id <= pos.h0) AS o
     WHERE NOT (o.id <= old_pos.h0 AND pg_catalog.pg_visible_in_snapshot(o.xid, old_pos.s0))
       AND NOT (o.id <= old_pos.p AND COALESCE(pg_catalog.pg_visible_in_snapshot(o.xid, old_pos.s1), false))
       AND NOT EXISTS (  -- after a replay it may wait there already
           SELECT FROM durable_notify.deferred d
            WHERE d.subscription_id = subscription.id AND d.message_id = o.id AND d.replay_job IS NULL);
    GET DIAGNOSTICS put_off = ROW_COUNT;
    PERFORM durable_notify._save_position(old_pos, pos, old_pos.lease_tokens);
    UPDATE durable_notify.replay_job j
       SET s0 = now_snapshot, h0 = GREATEST(j.h0, j.p), s1 = NULL, p = 0
     WHERE j.subscription_id = subscription.id AND j.state = 'running';
    RETURN put_off + (SELECT pg_catalog.count(*) FROM durable_notify.outbox o WHERE o.topic = subscription.topic AND o.id > pos.h0);
END
$function$;

CREATE FUNCTION durable_notify._sync_sequences() RETURNS void
LANGUAGE plpgsql VOLATILE AS $function$
DECLARE
    subscription record;
BEGIN
    -- Set every sequence past the ids that exist: logical replication carries rows over, but not the
    -- sequences that numbered them.
    --
    -- A sequence that was never drawn from stands at 1, too, and has yet to return it.
    FOR subscription IN
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
            subscription.sequence, subscription.sequence, subscription.attname, subscription.relname);
    END LOOP;
END
$function$;
