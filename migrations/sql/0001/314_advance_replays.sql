CREATE FUNCTION durable_notify.advance_replays(group_name text, topics text[]) RETURNS double precision
LANGUAGE plpgsql
SET lock_timeout = '5s' SET search_path = pg_catalog, durable_notify, pg_temp AS $function$
#variable_conflict use_column
DECLARE
    found record;
    due double precision;
BEGIN
    -- One step of each running replay of these topics into a group; returns seconds until the next
    -- step, NULL where none is running. Its consumers call it. Two at once do not double: a job that
    -- somebody else advances is left to them. Progress is in the same transaction as the messages.
    IF NOT durable_notify.has_own_rights() THEN
        RETURN durable_notify.advance_replays_granted(group_name, topics);
    END IF;
    FOR found IN
        SELECT j AS job, s.topic
          FROM durable_notify.replay_job j
          JOIN durable_notify.subscription s ON s.id = j.subscription_id
          JOIN durable_notify.consumer_group g ON g.id = s.group_id
         WHERE j.state = 'running' AND g.name = group_name AND s.topic = ANY (topics)
           FOR UPDATE OF j SKIP LOCKED
    LOOP
        due := LEAST(due, durable_notify.advance_replay(found.job, found.topic));
    END LOOP;
    RETURN due;
END
$function$;
