CREATE FUNCTION durable_notify.reanchor_place(part durable_notify.subscription, now_snapshot pg_snapshot) RETURNS bigint
LANGUAGE plpgsql AS $function$
#variable_conflict use_column
DECLARE
    old_place durable_notify.position;
    place durable_notify.position;
    put_off bigint;
BEGIN
    -- Say where a subscription stands without the other cluster's snapshots; returns how many messages
    -- it has not been handed. reanchor() makes every message there is visible to now_snapshot.
    --
    -- No message above both h0 and p has been handed over: from there on it reads. Of those below, what
    -- was not visible to the old snapshots was in flight when it was copied: these few are put off, and
    -- come first. The snapshots are compared with xids of their own cluster, which is plain arithmetic;
    -- what was published here since has an id above them.
    SELECT * INTO old_place FROM durable_notify.position p
     WHERE p.subscription_id = part.id ORDER BY p.seq DESC LIMIT 1;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'the copy is not whole: a group consumes topic "%" and has no position in it', part.topic
            USING ERRCODE = 'object_not_in_prerequisite_state',
                  HINT = 'Copy all tables of the schema durable_notify. Nothing was changed.';
    END IF;
    place := old_place;
    place.s0 := now_snapshot;
    place.h0 := GREATEST(old_place.h0, old_place.p);
    place.s1 := NULL;
    place.h1 := NULL;
    place.p := 0;
    INSERT INTO durable_notify.deferred (subscription_id, message_id, due_at, attempt, waits_for, key)
    SELECT part.id, o.id, pg_catalog.clock_timestamp(), 1, CASE WHEN o.key IS NULL THEN 'retry' ELSE 'key' END, o.key
      FROM (SELECT o.id, o.xid, durable_notify.order_key(g.order_by, o.key) AS key
              FROM durable_notify.outbox o
              JOIN durable_notify.consumer_group g ON g.id = part.group_id
             WHERE o.topic = part.topic AND o.id <= place.h0) AS o
     WHERE NOT (o.id <= old_place.h0 AND pg_catalog.pg_visible_in_snapshot(o.xid, old_place.s0))
       AND NOT (o.id <= old_place.p AND COALESCE(pg_catalog.pg_visible_in_snapshot(o.xid, old_place.s1), false))
       AND NOT EXISTS (  -- after a replay it may wait there already
           SELECT FROM durable_notify.deferred d
            WHERE d.subscription_id = part.id AND d.message_id = o.id AND d.replay_job IS NULL);
    GET DIAGNOSTICS put_off = ROW_COUNT;
    PERFORM durable_notify.move(old_place, place, old_place.live);
    UPDATE durable_notify.replay_job j
       SET s0 = now_snapshot, h0 = GREATEST(j.h0, j.p), s1 = NULL, p = 0
     WHERE j.subscription_id = part.id AND j.state = 'running';
    RETURN put_off + (SELECT pg_catalog.count(*) FROM durable_notify.outbox o WHERE o.topic = part.topic AND o.id > place.h0);
END
$function$;
