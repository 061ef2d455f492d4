CREATE FUNCTION durable_notify._take_deferred(
    subscription_id integer, wanted bigint[], OUT ids bigint[], OUT attempts integer[], OUT replay_jobs bigint[]
)
LANGUAGE plpgsql
SET enable_sort = on SET enable_hashjoin = on AS $function$
#variable_conflict use_column
BEGIN
    -- Take messages out of deferred, each with all of its rows. A message is delivered once for all of
    -- its reasons, as the highest attempt. It belongs to a replay only if every row is of that replay:
    -- if two replays have it, one has delivered it, and it cannot be cancelled any more. Returned in
    -- the order wanted. The caller holds the group's lock: without it nothing removes rows.
    WITH gone AS (
        DELETE FROM durable_notify.deferred d
         WHERE d.subscription_id = _take_deferred.subscription_id AND d.message_id = ANY (wanted)
        RETURNING d.message_id, d.attempt, d.replay_job),
    message AS (
        SELECT g.message_id, pg_catalog.max(g.attempt) AS attempt,
               CASE WHEN pg_catalog.bool_and(g.replay_job IS NOT NULL) AND pg_catalog.min(g.replay_job) = pg_catalog.max(g.replay_job)
                    THEN pg_catalog.max(g.replay_job) END AS replay_job
          FROM gone g GROUP BY g.message_id)
    SELECT COALESCE(pg_catalog.array_agg(m.message_id ORDER BY w.ord), '{}'),
           COALESCE(pg_catalog.array_agg(m.attempt ORDER BY w.ord), '{}'),
           COALESCE(pg_catalog.array_agg(m.replay_job ORDER BY w.ord), '{}')
      INTO ids, attempts, replay_jobs
      FROM (SELECT n.id, pg_catalog.min(n.ord) AS ord
              FROM pg_catalog.unnest(wanted) WITH ORDINALITY AS n (id, ord) GROUP BY n.id) AS w
      JOIN message m ON m.message_id = w.id;
END
$function$;
