CREATE FUNCTION durable_notify.seek(
    group_name text, topic text, after_id bigint DEFAULT NULL, since timestamptz DEFAULT NULL,
    to_now boolean DEFAULT false, why text DEFAULT NULL, dry_run boolean DEFAULT false,
    backward_only boolean DEFAULT false, drop_waiting boolean DEFAULT false, OUT redelivered bigint, OUT skipped bigint
)
LANGUAGE plpgsql
SET enable_seqscan = off SET jit = off SET lock_timeout = '5s'
SET search_path = pg_catalog, durable_notify, pg_temp AS $function$
#variable_conflict use_column
DECLARE
    pos durable_notify.position;
    target durable_notify.position;
    target_id bigint;
    now_snapshot pg_snapshot;
BEGIN
    -- Move a group in a topic, back or forward: to after an id, to a time, or to now. Returns how many
    -- committed messages are redelivered, and how many that were never delivered are skipped. With
    -- backward_only it never moves forward, and skips nothing; with dry_run it only counts.
    --
    -- No straggler is lost: what is in flight is delivered when it commits, however low its id; after a
    -- move back, what was committed and not delivered yet is still delivered, too. Retries keep
    -- waiting, except those among the redelivered messages.
    -- drop_waiting ends replays that fail again and again: what waits up to there for another attempt or
    -- for its key counts as skipped, too, and running replays of the topic are cancelled. What consumers
    -- hold stays theirs, and may wait for another attempt afterwards: pause the group first.
    IF NOT durable_notify._is_owner() THEN
        SELECT g.redelivered, g.skipped INTO redelivered, skipped
          FROM durable_notify._seek_granted(group_name, topic, after_id, since, to_now, why, dry_run, backward_only,
               drop_waiting) AS g;
        RETURN;
    END IF;
    IF (after_id IS NOT NULL)::integer + (since IS NOT NULL)::integer + to_now::integer <> 1 OR after_id < 0 THEN
        RAISE EXCEPTION 'seek to after an id of 0 or more, since a time, or to now' USING ERRCODE = '22023';
    END IF;
    IF NOT dry_run THEN
        PERFORM durable_notify._block_removal();  -- what is redelivered is not removed meanwhile
    END IF;
    pos := durable_notify._locked_position(group_name, topic);
    -- Take the snapshot before the id is read: what commits in between is then late, and looked for;
    -- not skipped.
    now_snapshot := durable_notify._committed_snapshot();
    target_id := CASE WHEN to_now THEN durable_notify.last_id(topic)
                      ELSE COALESCE(after_id, durable_notify._id_before(topic, since)) END;
    target := pos;
    IF backward_only OR target_id < GREATEST(pos.h0, pos.p) THEN
        skipped := 0;
        redelivered := (SELECT pg_catalog.count(*) FROM durable_notify.outbox o WHERE o.topic = seek.topic AND o.id > target_id)
               - (SELECT pg_catalog.count(*) FROM durable_notify._unread(pos.subscription_id) u WHERE u.id > target_id);
        -- Exact with the snapshots as they are: delivered is what is visible in s0 up to h0, or in s1
        -- up to p, and both bounds come down.
        target.h0 := LEAST(pos.h0, target_id);
        target.p := LEAST(pos.p, target_id);
        IF NOT dry_run THEN
            DELETE FROM durable_notify.deferred d
             WHERE d.subscription_id = pos.subscription_id AND d.message_id > target_id;
        END IF;
    ELSE
        redelivered := 0;
        skipped := (SELECT pg_catalog.count(*) FROM durable_notify._unread(pos.subscription_id) u WHERE u.id <= target_id);
        target.s0 := now_snapshot;
        target.h0 := target_id;
        target.s1 := NULL;
        target.h1 := NULL;
        target.p := 0;
    END IF;
    IF drop_waiting THEN
        skipped := skipped + durable_notify._drop_waiting(pos.subscription_id, target_id, dry_run);
    END IF;
    IF dry_run THEN
        RETURN;
    END IF;
    PERFORM durable_notify._save_position(pos, target, pos.lease_tokens);
    PERFORM durable_notify._ring(topic, '0');
    PERFORM durable_notify._record_audit('seek', group_name, pg_catalog.jsonb_build_object(
        'after_id', target_id, 'redelivered', redelivered, 'skipped', skipped, 'before', GREATEST(pos.h0, pos.p)), topic, NULL, why);
END
$function$;

CREATE FUNCTION durable_notify._drop_waiting(subscription_id integer, upto bigint, dry_run boolean) RETURNS bigint
LANGUAGE plpgsql AS $function$
#variable_conflict use_column
DECLARE
    running bigint[] := ARRAY(
        SELECT j.id FROM durable_notify.replay_job j
         WHERE j.subscription_id = _drop_waiting.subscription_id AND j.state = 'running' FOR UPDATE);
    dropped bigint;
BEGIN
    -- Drop the messages of a subscription up to an id that wait for another attempt, for their key or in
    -- a replay, and cancel its running replays; returns how many messages. With dry_run it only counts.
    -- The caller holds the group's lock, under which rows of deferred are removed. A message that waits
    -- for its deliver_at is not late, and stays.
    SELECT pg_catalog.count(DISTINCT d.message_id) INTO dropped FROM durable_notify.deferred d
     WHERE d.subscription_id = _drop_waiting.subscription_id
       AND (d.message_id <= upto AND d.reason <> 'delivery' OR d.replay_job = ANY (running));
    IF NOT dry_run THEN
        UPDATE durable_notify.replay_job j SET state = 'cancelled', ended_at = pg_catalog.clock_timestamp()
         WHERE j.id = ANY (running);
        DELETE FROM durable_notify.deferred d
         WHERE d.subscription_id = _drop_waiting.subscription_id
           AND (d.message_id <= upto AND d.reason <> 'delivery' OR d.replay_job = ANY (running));
    END IF;
    RETURN dropped;
END
$function$;

CALL durable_notify._grantable('seek', '{consume}', $$_require('consume', ARRAY[topic], group_name)$$);
