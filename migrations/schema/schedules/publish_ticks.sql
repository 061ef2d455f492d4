CREATE FUNCTION durable_notify.publish_ticks(
    name text, due timestamptz, ticks timestamptz[], next_at timestamptz
) RETURNS SETOF bigint
LANGUAGE plpgsql
SET lock_timeout = '5s' SET search_path = pg_catalog, durable_notify, pg_temp AS $function$
#variable_conflict use_variable
DECLARE
    chosen durable_notify.schedule;
    tick timestamptz;
    new_id bigint;
BEGIN
    -- Publish a message for each of some ticks of a schedule, the one that is due or later ones, and move
    -- it to its next tick: all in one transaction. Returns their ids; nothing, if another session has
    -- moved it already, or it is paused, changed or deleted.
    --
    -- A tick is published once: the schedule's row is locked until the commit, and its next tick is no
    -- longer the one that is due afterwards. Which session does it is decided by that lock; a second one
    -- passes a locked row over. next_at only grows, whatever the clocks say.
    IF NOT durable_notify._is_owner() THEN
        RETURN QUERY SELECT * FROM durable_notify._publish_ticks_granted(name, due, ticks, next_at);
        RETURN;
    END IF;
    IF next_at <= due OR EXISTS (SELECT FROM pg_catalog.unnest(ticks) AS t (tick)
                                  WHERE t.tick IS NULL OR t.tick < due OR t.tick >= next_at)
       OR pg_catalog.cardinality(ticks) > 1000 THEN
        RAISE EXCEPTION 'the ticks of schedule "%" must be in order: due, those to publish, next', name
            USING ERRCODE = '22023', HINT = 'Nothing was published.';
    END IF;
    SELECT s.* INTO chosen FROM durable_notify.schedule s
     WHERE s.name = name AND s.next_at = due AND s.paused_at IS NULL FOR UPDATE SKIP LOCKED;
    IF NOT FOUND THEN
        RETURN;
    END IF;
    FOREACH tick IN ARRAY ticks LOOP
        new_id := durable_notify._publish_tick(chosen, tick);
        RETURN NEXT new_id;
    END LOOP;
    UPDATE durable_notify.schedule s
       SET next_at = publish_ticks.next_at, last_at = COALESCE(tick, s.last_at), last_id = COALESCE(new_id, s.last_id)
     WHERE s.name = publish_ticks.name;
END
$function$;

CREATE FUNCTION durable_notify._publish_tick(chosen durable_notify.schedule, tick timestamptz) RETURNS bigint
LANGUAGE plpgsql AS $function$
DECLARE
    new_id bigint;
BEGIN
    -- Publish the message of a schedule for a tick; returns its id. Its headers name both.
    INSERT INTO durable_notify.outbox (topic, key, payload, headers)
    VALUES (chosen.topic, chosen.key, chosen.payload, chosen.headers || pg_catalog.jsonb_build_object(
            'schedule', chosen.name,
            'scheduled_for', pg_catalog.to_char(tick AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"')))
    RETURNING id INTO new_id;
    RETURN new_id;
END
$function$;

CALL durable_notify._grantable('publish_ticks', '{publish}', $$_require('publish', durable_notify._topic_of_schedule(name))$$);
