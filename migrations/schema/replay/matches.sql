CREATE FUNCTION durable_notify._matches_replay(job durable_notify.replay_job, message durable_notify.outbox)
RETURNS boolean
LANGUAGE sql STABLE AS $function$
    -- Return whether a job replays a message: it matches every condition, and it had been delivered to
    -- the group when the job started.
    SELECT message.id > job.after_id AND message.id <= job.upto_id
       AND (pg_catalog.pg_visible_in_snapshot(message.xid, job.s0) AND message.id <= job.h0
            OR job.s1 IS NOT NULL AND pg_catalog.pg_visible_in_snapshot(message.xid, job.s1) AND message.id <= job.p)
       AND (job.since IS NULL OR message.created_at >= job.since)
       AND (job.until IS NULL OR message.created_at < job.until)
       AND (job.keys IS NULL OR message.key = ANY (job.keys))
       AND (job.headers IS NULL OR message.headers @> job.headers)
       AND (job.payload IS NULL OR message.payload @> job.payload)
       AND (job.path IS NULL OR pg_catalog.jsonb_path_exists(message.payload, job.path, silent => true))
$function$;
