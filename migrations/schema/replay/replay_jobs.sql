CREATE FUNCTION durable_notify.replay_jobs() RETURNS TABLE (
    job_id bigint, group_name text, topic text, state text, total bigint, done bigint, last_id bigint,
    rate_limit double precision, created_at timestamptz, created_by text, why text, ended_at timestamptz
)
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, durable_notify, pg_temp AS $function$
#variable_conflict use_column
BEGIN
    -- The replays that were started, of the groups that the caller may see, the newest first.
    IF NOT durable_notify._is_owner() THEN
        RETURN QUERY SELECT * FROM durable_notify._replay_jobs_granted();
        RETURN;
    END IF;
    RETURN QUERY
    SELECT j.id, g.name, s.topic, j.state, j.total, j.done, j.last_id, j.rate_limit, j.created_at, j.created_by, j.why,
           j.ended_at
      FROM durable_notify.replay_job j
      JOIN durable_notify.subscription s ON s.id = j.subscription_id
      JOIN durable_notify.consumer_group g ON g.id = s.group_id
     ORDER BY j.id DESC;
END
$function$;

CALL durable_notify._grantable('replay_jobs', '{observe,consume}', $$_require_observe()$$,
    visible => $$_can_observe(f.group_name, f.topic)$$);
