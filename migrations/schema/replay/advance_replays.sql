CREATE FUNCTION durable_notify.advance_replays(group_name text, topics text[]) RETURNS double precision
LANGUAGE plpgsql
SET lock_timeout = '5s' SET search_path = pg_catalog, durable_notify, pg_temp AS $function$
#variable_conflict use_column
DECLARE
    found record;
    due double precision;
BEGIN
    -- Do one step of each running replay of these topics into a group; returns seconds until the next
    -- step, NULL if none is running. The group's consumers call it. Two calls at once do not double a
    -- step: each skips a job that the other advances. Progress is in the same transaction as the
    -- messages.
    IF NOT durable_notify._is_owner() THEN
        RETURN durable_notify._advance_replays_granted(group_name, topics);
    END IF;
    FOR found IN
        SELECT j AS job, s.topic
          FROM durable_notify.replay_job j
          JOIN durable_notify.subscription s ON s.id = j.subscription_id
          JOIN durable_notify.consumer_group g ON g.id = s.group_id
         WHERE j.state = 'running' AND g.name = group_name AND s.topic = ANY (topics)
           FOR UPDATE OF j SKIP LOCKED
    LOOP
        due := LEAST(due, durable_notify._advance_replay(found.job, found.topic));
    END LOOP;
    RETURN due;
END
$function$;

CREATE FUNCTION durable_notify._advance_replay(job durable_notify.replay_job, topic text) RETURNS double precision
LANGUAGE plpgsql
SET enable_seqscan = off SET enable_bitmapscan = off SET enable_sort = on SET jit = off AS $function$
#variable_conflict use_column
DECLARE
    now_time timestamptz := pg_catalog.clock_timestamp();
    allowed bigint := 500;
    waiting bigint;
    since_last double precision := GREATEST(0, EXTRACT(epoch FROM now_time - job.stepped_at)::double precision);
    step record;
BEGIN
    -- One step of a job, whose row the caller has locked: a bounded number of messages, and of rows
    -- looked at; returns seconds until the next.
    --
    -- The rate counts from the last step, a second at most: a replay that was stopped for long does not
    -- catch up at full speed.
    waiting := (SELECT pg_catalog.count(*) FROM (
        SELECT FROM durable_notify.deferred d
         WHERE d.subscription_id = job.subscription_id AND d.reason = 'replay' LIMIT 1000) AS w);
    allowed := LEAST(allowed, 1000 - waiting);
    IF job.rate_limit IS NOT NULL THEN
        allowed := LEAST(allowed, pg_catalog.floor(job.rate_limit * LEAST(GREATEST(1, 1 / job.rate_limit), since_last))::bigint);
    END IF;
    IF allowed <= 0 THEN
        RETURN CASE WHEN waiting >= 1000 THEN 0.2 ELSE GREATEST(0.01, 1 / job.rate_limit - since_last) END;
    END IF;
    WITH looked_at AS (
        SELECT o.id, durable_notify._matches_replay(job, o) AS fits FROM durable_notify.outbox o
         WHERE o.topic = _advance_replay.topic AND o.id > job.last_id AND o.id <= job.upto_id
         ORDER BY o.id LIMIT 5000),
    fitting AS (
        SELECT l.id FROM looked_at l WHERE l.fits ORDER BY l.id LIMIT allowed),
    moved AS (
        INSERT INTO durable_notify.deferred (subscription_id, message_id, due_at, attempt, reason, replay_job)
        SELECT job.subscription_id, f.id, now_time, 1, 'replay', job.id FROM fitting f
         WHERE NOT EXISTS (  -- a message that waits is delivered anyhow, at its time
               SELECT FROM durable_notify.deferred d
                WHERE d.subscription_id = job.subscription_id AND d.message_id = f.id AND d.replay_job IS NULL))
    SELECT (SELECT pg_catalog.count(*) FROM looked_at) AS looked, (SELECT pg_catalog.max(id) FROM looked_at) AS last_looked,
           (SELECT pg_catalog.count(*) FROM fitting) AS moved, (SELECT pg_catalog.max(id) FROM fitting) AS last_moved
      INTO step;
    UPDATE durable_notify.replay_job j
       SET done = j.done + step.moved,
           last_id = CASE WHEN step.moved = allowed THEN step.last_moved ELSE COALESCE(step.last_looked, j.last_id) END,
           stepped_at = now_time,
           state = CASE WHEN step.looked < 5000 AND step.moved < allowed THEN 'done' ELSE j.state END,
           ended_at = CASE WHEN step.looked < 5000 AND step.moved < allowed THEN now_time END
     WHERE j.id = job.id;
    IF step.moved > 0 THEN
        PERFORM durable_notify._ring(topic, '0');
    END IF;
    RETURN CASE WHEN job.rate_limit IS NULL THEN 0 ELSE 1 / job.rate_limit END;
END
$function$;

CALL durable_notify._grantable('advance_replays', '{consume}', $$_require('consume', topics, group_name)$$);
