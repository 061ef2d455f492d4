CREATE FUNCTION durable_notify.take_due(
    subscription_id integer, max_messages integer, OUT ids bigint[], OUT attempts integer[], OUT replay_jobs bigint[]
)
LANGUAGE plpgsql AS $function$
#variable_conflict use_column
BEGIN
    -- Take messages out of deferred that hold back nothing and are due: the earliest are taken first.
    SELECT t.* INTO STRICT ids, attempts, replay_jobs
      FROM durable_notify.take_deferred(subscription_id, ARRAY(
           SELECT w.message_id FROM durable_notify.deferred w
            WHERE w.subscription_id = take_due.subscription_id AND w.key IS NULL
              AND w.due_at <= pg_catalog.clock_timestamp()
            ORDER BY w.due_at, w.message_id
            LIMIT max_messages)) AS t;
END
$function$;
