CREATE FUNCTION durable_notify.start_replay(
    group_name text, topic text, after_id bigint DEFAULT NULL, upto_id bigint DEFAULT NULL,
    since timestamptz DEFAULT NULL, until timestamptz DEFAULT NULL, keys text[] DEFAULT NULL,
    headers jsonb DEFAULT NULL, payload jsonb DEFAULT NULL, path jsonpath DEFAULT NULL,
    rate_limit double precision DEFAULT NULL, why text DEFAULT NULL, dry_run boolean DEFAULT false,
    OUT job_id bigint, OUT total bigint
)
LANGUAGE plpgsql
SET lock_timeout = '5s' SET jit = off
SET search_path = pg_catalog, durable_notify, pg_temp AS $function$
#variable_conflict use_column
DECLARE
    job durable_notify.replay_job;
    pos durable_notify.position;
BEGIN
    -- Redeliver to a group messages of a topic that match every condition given, beside what is new and
    -- without moving its position; returns the job and how many messages that is. With dry_run it only
    -- counts. Only messages that were delivered by now, or published before the group started, if that
    -- was not at the beginning: the rest it gets anyhow.
    IF NOT durable_notify._is_owner() THEN
        SELECT g.job_id, g.total INTO job_id, total FROM durable_notify._start_replay_granted(
            group_name, topic, after_id, upto_id, since, until, keys, headers, payload, path, rate_limit, why, dry_run) AS g;
        RETURN;
    END IF;
    IF NOT dry_run THEN
        PERFORM durable_notify._block_removal();  -- what is redelivered is not removed meanwhile
    END IF;
    pos := durable_notify._locked_position(group_name, topic);
    IF NOT (rate_limit > 0 AND rate_limit <= 1000000) OR after_id < 0 THEN  -- NaN is above all
        RAISE EXCEPTION 'a rate limit must be positive and at most 1000000, and an id 0 or more' USING ERRCODE = '22023';
    END IF;
    IF NOT dry_run AND EXISTS (SELECT FROM durable_notify.replay_job j
                                WHERE j.subscription_id = pos.subscription_id AND j.state = 'running') THEN
        RAISE unique_violation;
    END IF;
    job.subscription_id := pos.subscription_id;
    job.s0 := pos.s0;
    job.h0 := pos.h0;
    job.s1 := pos.s1;
    job.p := pos.p;
    job.after_id := COALESCE(after_id, 0);
    job.upto_id := COALESCE(upto_id, 9223372036854775807);
    job.since := since;
    job.until := until;
    job.keys := keys;
    job.headers := headers;
    job.payload := payload;
    job.path := path;
    SELECT pg_catalog.count(*) INTO total FROM durable_notify.outbox o
     WHERE o.topic = start_replay.topic AND o.id > job.after_id AND durable_notify._matches_replay(job, o);
    IF dry_run THEN
        RETURN;
    END IF;
    INSERT INTO durable_notify.replay_job (
        subscription_id, s0, h0, s1, p, after_id, upto_id, since, until, keys, headers, payload, path,
        rate_limit, total, last_id, why)
    VALUES (job.subscription_id, job.s0, job.h0, job.s1, job.p, job.after_id, job.upto_id, job.since, job.until,
            job.keys, job.headers, job.payload, job.path, start_replay.rate_limit, start_replay.total,
            job.after_id, start_replay.why)
    RETURNING id INTO job_id;
    PERFORM durable_notify._record_audit(
        'replay', group_name, pg_catalog.jsonb_build_object('job', job_id), topic, total, why);
    PERFORM durable_notify._ring(topic, '*');
EXCEPTION WHEN unique_violation THEN  -- or by the index: a frozen snapshot may not have it
    RAISE EXCEPTION 'a replay of topic "%" into group "%" is running', topic, group_name
        USING ERRCODE = '22023', HINT = 'Wait until it is done, or cancel it: durable_notify.cancel_replay().';
END
$function$;

CALL durable_notify._grantable('start_replay', '{consume}', $$_require('consume', ARRAY[topic], group_name)$$);
