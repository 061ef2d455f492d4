CREATE FUNCTION durable_notify._record_losses(topic text, below bigint) RETURNS bigint
LANGUAGE plpgsql
SET lock_timeout = '50ms'
SET search_path = pg_catalog, durable_notify, pg_temp AS $function$
#variable_conflict use_column
DECLARE
    subscription durable_notify.subscription;
    policy durable_notify.topic_retention := durable_notify._retention_for(topic);
    lost bigint := 0;
BEGIN
    -- If a topic's retention says lose: have the groups that lag lose what they have not settled below
    -- an id, and record it; returns how many messages that is. At most 5,000 of one group at once: call
    -- it until it returns 0. A busy group is left for the next time. Claims of the group wait until the
    -- commit.
    IF policy.on_lag IS DISTINCT FROM 'lose' THEN
        RETURN 0;
    END IF;
    below := LEAST(below, durable_notify._policy_watermark(topic, policy),
                   durable_notify._watermark());
    FOR subscription IN SELECT s.* FROM durable_notify.subscription s WHERE s.topic = _record_losses.topic ORDER BY s.group_id LOOP
        EXIT WHEN lost > 0;  -- do not wait for one group while others wait for this
        CONTINUE WHEN durable_notify._settled_watermark(subscription.id, below) >= below;
        BEGIN
            PERFORM durable_notify._acquire_group_lock(subscription.group_id);
        EXCEPTION WHEN lock_not_available THEN
            CONTINUE;
        END;
        IF EXISTS (SELECT FROM durable_notify.subscription s WHERE s.id = subscription.id) THEN
            lost := lost + durable_notify._record_loss(
                subscription, below, pg_catalog.concat_ws(', ', 'max_age ' || policy.max_age, 'max_bytes ' || policy.max_bytes));
        END IF;
    END LOOP;
    RETURN lost;
END
$function$;

CREATE FUNCTION durable_notify._record_loss(subscription durable_notify.subscription, below bigint, reason text) RETURNS bigint
LANGUAGE plpgsql
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off SET jit = off AS $function$
#variable_conflict use_column
DECLARE
    old_pos durable_notify.position;
    new_pos durable_notify.position;
    seen pg_snapshot;
    lost record;
    put_off record;
    last bigint;
BEGIN
    -- Have a group lose what it has not settled of a topic below an id, except what its consumers hold;
    -- returns how many messages that is. The caller holds the group's lock. At most 5,000 unread ones
    -- at once.
    --
    -- Nothing is removed here: it counts as settled from here on, and is recorded in the same
    -- transaction. What is past its expiry was not lost by this: it is dropped and counted, or becomes
    -- a dead letter, as in a claim.
    seen := durable_notify._committed_snapshot();
    SELECT * INTO STRICT old_pos FROM durable_notify.position p
     WHERE p.subscription_id = subscription.id ORDER BY p.seq DESC LIMIT 1;
    PERFORM durable_notify._reclaim_leases(old_pos.lease_tokens, true, true);  -- what no consumer holds any more
    last := COALESCE(
        (SELECT o.id FROM durable_notify.outbox o
          WHERE o.topic = subscription.topic AND o.id < below
            AND o.id > GREATEST(old_pos.h0, CASE WHEN old_pos.s1 IS NOT NULL THEN old_pos.p END)
          ORDER BY o.id OFFSET 4999 LIMIT 1), below - 1);
    new_pos := durable_notify._position_after_loss(old_pos, seen, last);
    SELECT pg_catalog.count(*) FILTER (WHERE NOT u.late) AS messages, pg_catalog.min(u.id) FILTER (WHERE NOT u.late) AS first_id,
           pg_catalog.max(u.id) FILTER (WHERE NOT u.late) AS last_id, pg_catalog.array_agg(u.id) FILTER (WHERE u.late) AS late
      INTO STRICT lost FROM durable_notify._unread_upto(subscription.topic, old_pos, seen, last) AS u
     WHERE new_pos.subscription_id IS NOT NULL;
    IF new_pos.subscription_id IS NOT NULL THEN
        new_pos.expired := new_pos.expired + COALESCE(pg_catalog.cardinality(lost.late), 0);
        PERFORM durable_notify._save_position(old_pos, new_pos, old_pos.lease_tokens);
        PERFORM durable_notify._dead_letter(subscription.id, m.id, 0, 'expired')
           FROM pg_catalog.unnest(lost.late) AS m (id) JOIN durable_notify.consumer_group g ON g.id = subscription.group_id
          WHERE g.on_expiry = 'dead_letter';
    END IF;
    WITH gone AS (
        DELETE FROM durable_notify.deferred d WHERE d.subscription_id = subscription.id AND d.message_id <= last
        RETURNING d.message_id, d.replay_job)
    SELECT pg_catalog.count(DISTINCT g.message_id) AS messages, pg_catalog.min(g.message_id) AS first_id, pg_catalog.max(g.message_id) AS last_id
      INTO put_off FROM gone g WHERE g.replay_job IS NULL;
    UPDATE durable_notify.replay_job j SET last_id = GREATEST(j.last_id, last)
     WHERE j.subscription_id = subscription.id AND j.state = 'running';
    IF lost.messages + put_off.messages > 0 THEN
        INSERT INTO durable_notify.lost_message (group_name, topic, first_id, last_id, messages, reason)
        SELECT g.name, subscription.topic, LEAST(lost.first_id, put_off.first_id), GREATEST(lost.last_id, put_off.last_id),
               lost.messages + put_off.messages, _record_loss.reason
          FROM durable_notify.consumer_group g WHERE g.id = subscription.group_id;
        PERFORM durable_notify._record_audit(
            'lose', g.name, pg_catalog.jsonb_build_object('below', last + 1), subscription.topic,
            lost.messages + put_off.messages, _record_loss.reason)
           FROM durable_notify.consumer_group g WHERE g.id = subscription.group_id;
        PERFORM durable_notify._publish_event('loss', g.name, subscription.topic, pg_catalog.jsonb_build_object(
            'first_id', LEAST(lost.first_id, put_off.first_id), 'last_id', GREATEST(lost.last_id, put_off.last_id),
            'messages', lost.messages + put_off.messages, 'reason', _record_loss.reason))
           FROM durable_notify.consumer_group g WHERE g.id = subscription.group_id;
    END IF;
    PERFORM durable_notify._ring(subscription.topic, '0');  -- a key may be free
    RETURN lost.messages + put_off.messages;
END
$function$;

CREATE FUNCTION durable_notify._position_after_loss(
    pos durable_notify.position, seen pg_snapshot, last bigint
) RETURNS durable_notify.position
LANGUAGE plpgsql IMMUTABLE AS $function$
BEGIN
    -- A subscription's position once everything up to an id that is visible in a snapshot counts as
    -- delivered, and nothing else that was not. NULL if two pairs of a snapshot and an id cannot
    -- express that.
    --
    -- Delivered is what is visible in s0 up to h0, or in s1 up to p. What commits late is not, however
    -- low its id. A window that is opened here ends where the old position did.
    IF GREATEST(pos.h0, CASE WHEN pos.s1 IS NOT NULL THEN pos.p END) <= last THEN
        pos.s0 := seen;
        pos.h0 := last;
        pos.s1 := NULL;
        pos.h1 := NULL;
        pos.p := 0;
        RETURN pos;
    END IF;
    IF pos.s1 IS NOT NULL AND pos.p > last THEN
        IF pos.h0 > pos.p THEN
            RETURN NULL;  -- among its stragglers, and past this: it gets the few there are
        END IF;
        pos.s0 := pos.s1;
        pos.h0 := pos.p;
    END IF;
    pos.s1 := seen;
    pos.h1 := pos.h0;
    pos.p := last;
    RETURN pos;
END
$function$;
