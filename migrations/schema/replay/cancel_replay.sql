CREATE FUNCTION durable_notify.cancel_replay(job_id bigint) RETURNS boolean
LANGUAGE plpgsql
SET lock_timeout = '5s' SET search_path = pg_catalog, durable_notify, pg_temp AS $function$
#variable_conflict use_column
DECLARE
    ended durable_notify.replay_job;
    of_group text;
BEGIN
    -- End a running replay. What it has redelivered and no consumer has claimed yet is not delivered,
    -- unless the group is owed it for another reason. False: it was not running.
    IF NOT durable_notify._is_owner() THEN
        RETURN durable_notify._cancel_replay_granted(job_id);
    END IF;
    SELECT g.name INTO of_group
      FROM durable_notify.replay_job j
      JOIN durable_notify.subscription s ON s.id = j.subscription_id
      JOIN durable_notify.consumer_group g ON g.id = s.group_id
     WHERE j.id = job_id;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    PERFORM durable_notify._lock_group(of_group);  -- under which rows of deferred are removed
    UPDATE durable_notify.replay_job j SET state = 'cancelled', ended_at = pg_catalog.clock_timestamp()
     WHERE j.id = job_id AND j.state = 'running'
    RETURNING * INTO ended;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    DELETE FROM durable_notify.deferred d
     WHERE d.subscription_id = ended.subscription_id AND d.replay_job = ended.id;
    PERFORM durable_notify._ring(s.topic, '0') FROM durable_notify.subscription s WHERE s.id = ended.subscription_id;  -- room to read
    PERFORM durable_notify._record_audit('cancel replay', of_group, pg_catalog.jsonb_build_object('job', job_id));
    RETURN true;
END
$function$;

CALL durable_notify._grantable('cancel_replay', '{consume}', $$_require('consume', NULL, NULL, true)$$, next => $$
    IF NOT EXISTS (
        SELECT FROM durable_notify.replay_jobs() AS j
         WHERE j.job_id = _cancel_replay_granted.job_id
           AND durable_notify._has_grant('consume', j.topic, j.group_name)) THEN
        RETURN false;
    END IF;
$$);
