CREATE FUNCTION durable_notify.take_due(
    subscription_id integer, max_messages integer, OUT ids bigint[], OUT attempts integer[]
)
LANGUAGE plpgsql AS $function$
#variable_conflict use_column
BEGIN
    -- Take messages out of deferred that hold back nothing and are due, the earliest first.
    --
    -- Trap: as a subquery of the DELETE the first of them are looked for once for each row of the
    -- table, by some plans, and each time are others: a claim of one message took all that were due.
    WITH first AS MATERIALIZED (
        SELECT w.message_id FROM durable_notify.deferred w
         WHERE w.subscription_id = take_due.subscription_id AND w.key IS NULL
           AND w.due_at <= pg_catalog.clock_timestamp()
         ORDER BY w.due_at, w.message_id
         LIMIT max_messages
           FOR UPDATE SKIP LOCKED),
    gone AS (
        DELETE FROM durable_notify.deferred d USING first
         WHERE d.subscription_id = take_due.subscription_id AND d.message_id = first.message_id
        RETURNING d.message_id, d.attempt, d.due_at)
    SELECT COALESCE(pg_catalog.array_agg(g.message_id ORDER BY g.due_at, g.message_id), '{}'),
           COALESCE(pg_catalog.array_agg(g.attempt ORDER BY g.due_at, g.message_id), '{}')
      INTO ids, attempts FROM gone g;
END
$function$;
