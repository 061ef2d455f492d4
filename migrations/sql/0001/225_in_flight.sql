CREATE FUNCTION durable_notify.in_flight(
    group_id integer, OUT messages integer, OUT until timestamptz, OUT silent boolean
)
LANGUAGE plpgsql STABLE STRICT
SET enable_seqscan = off SET jit = off AS $function$
#variable_conflict use_column
BEGIN
    -- How many messages a group's consumers hold under leases that have not run out, in all topics; when the
    -- first of these does; and whether one will not ring the group when it is settled: it is from before
    -- the group had a limit.
    SELECT COALESCE(pg_catalog.sum(pg_catalog.cardinality(l.ids) - (
               SELECT pg_catalog.count(*) FROM durable_notify.settlement t WHERE t.token = l.token)), 0),
           pg_catalog.min(COALESCE(h.deadline, l.deadline)), pg_catalog.bool_or(l.rings IS DISTINCT FROM '*')
      INTO messages, until, silent
      FROM durable_notify.subscription s
     CROSS JOIN LATERAL (
           SELECT p.live FROM durable_notify.position p
            WHERE p.subscription_id = s.id ORDER BY p.seq DESC LIMIT 1) AS newest
     CROSS JOIN LATERAL pg_catalog.unnest(newest.live) AS held (token)
      JOIN durable_notify.lease l ON l.token = held.token
      LEFT JOIN durable_notify.heartbeat h ON h.token = l.token
     WHERE s.group_id = in_flight.group_id
       AND COALESCE(h.deadline, l.deadline) > pg_catalog.clock_timestamp();
END
$function$;
