CREATE FUNCTION durable_notify.note_loss(part durable_notify.subscription, below bigint, reason text) RETURNS bigint
LANGUAGE plpgsql
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off SET jit = off AS $function$
#variable_conflict use_column
DECLARE
    old_place durable_notify.position;
    new_place durable_notify.position;
    seen pg_snapshot;
    lost record;
    put_off record;
    last bigint;
BEGIN
    -- Have a group lose what it has not settled of a topic below an id, but for what its consumers hold;
    -- returns how many messages that is. The caller holds the group's lock. At most 5,000 undelivered ones at once.
    --
    -- Nothing is removed here: it counts as settled from here on, and is recorded in the same transaction. What is
    -- past its expiry was not lost by this: it is dropped and counted, or buried, as a claim would have done.
    seen := durable_notify.committed_snapshot();
    SELECT * INTO STRICT old_place FROM durable_notify.position p
     WHERE p.subscription_id = part.id ORDER BY p.seq DESC LIMIT 1;
    PERFORM durable_notify.take_over(old_place.live, true, true);  -- what nobody holds any more
    last := COALESCE(
        (SELECT o.id FROM durable_notify.outbox o
          WHERE o.topic = part.topic AND o.id < below
            AND o.id > GREATEST(old_place.h0, CASE WHEN old_place.s1 IS NOT NULL THEN old_place.p END)
          ORDER BY o.id OFFSET 4999 LIMIT 1), below - 1);
    new_place := durable_notify.lost_place(old_place, seen, last);
    SELECT pg_catalog.count(*) FILTER (WHERE NOT u.late) AS messages, pg_catalog.min(u.id) FILTER (WHERE NOT u.late) AS first_id,
           pg_catalog.max(u.id) FILTER (WHERE NOT u.late) AS last_id, pg_catalog.array_agg(u.id) FILTER (WHERE u.late) AS late
      INTO STRICT lost FROM durable_notify.undelivered_upto(part.topic, old_place, seen, last) AS u
     WHERE new_place.subscription_id IS NOT NULL;
    IF new_place.subscription_id IS NOT NULL THEN
        new_place.expired := new_place.expired + COALESCE(pg_catalog.cardinality(lost.late), 0);
        PERFORM durable_notify.move(old_place, new_place, old_place.live);
        PERFORM durable_notify.bury(part.id, m.id, 0, 'expired')
           FROM pg_catalog.unnest(lost.late) AS m (id) JOIN durable_notify.consumer_group g ON g.id = part.group_id
          WHERE g.on_expiry = 'dead_letter';
    END IF;
    WITH gone AS (
        DELETE FROM durable_notify.deferred d WHERE d.subscription_id = part.id AND d.message_id <= last
        RETURNING d.message_id, d.replay_job)
    SELECT pg_catalog.count(DISTINCT g.message_id) AS messages, pg_catalog.min(g.message_id) AS first_id, pg_catalog.max(g.message_id) AS last_id
      INTO put_off FROM gone g WHERE g.replay_job IS NULL;
    UPDATE durable_notify.replay_job j SET last_id = GREATEST(j.last_id, last)
     WHERE j.subscription_id = part.id AND j.state = 'running';
    IF lost.messages + put_off.messages > 0 THEN
        INSERT INTO durable_notify.loss (group_name, topic, first_id, last_id, messages, reason)
        SELECT g.name, part.topic, LEAST(lost.first_id, put_off.first_id), GREATEST(lost.last_id, put_off.last_id),
               lost.messages + put_off.messages, note_loss.reason
          FROM durable_notify.consumer_group g WHERE g.id = part.group_id;
        PERFORM durable_notify.note_audit(
            'lose', g.name, pg_catalog.jsonb_build_object('below', last + 1), part.topic,
            lost.messages + put_off.messages, note_loss.reason)
           FROM durable_notify.consumer_group g WHERE g.id = part.group_id;
    END IF;
    PERFORM durable_notify.ring(part.topic, '0');  -- a key may be free
    RETURN lost.messages + put_off.messages;
END
$function$;
