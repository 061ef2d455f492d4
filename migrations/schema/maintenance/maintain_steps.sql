CREATE FUNCTION durable_notify.maintain_steps() RETURNS TABLE (step text, topic text)
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, durable_notify, pg_temp AS $function$
#variable_conflict use_column
BEGIN
    -- The steps of a round of maintenance, in order; repeat each until maintain_step() says that
    -- nothing is left of it.
    IF NOT durable_notify._is_owner() THEN
        RETURN QUERY SELECT * FROM durable_notify._maintain_steps_granted();
        RETURN;
    END IF;
    RETURN QUERY
    SELECT s.name, NULL FROM pg_catalog.unnest(
        '{create_partitions,leases,dedup,inbox,audit,orphans,discover,watermark}'::text[]) WITH ORDINALITY AS s (name, ord)
     ORDER BY s.ord;
    -- What is removed with a whole partition need not be removed row by row: partitions first. And
    -- again afterwards, for what is empty then. Of the topics that are removed by age, only those whose
    -- oldest message is that old: by default that is every topic.
    RETURN QUERY
    SELECT s.name, t.name
      FROM (SELECT n AS name, durable_notify._retention_for(n) AS policy,
                   (SELECT pg_catalog.clock_timestamp() - o.created_at FROM durable_notify.outbox o
                     WHERE o.topic = n ORDER BY o.id LIMIT 1) AS age
              FROM durable_notify._topics() AS n
             UNION ALL SELECT NULL, NULL, NULL) AS t
     CROSS JOIN LATERAL (VALUES
           (1, 1, 'measure', (t.policy).max_bytes IS NOT NULL OR (t.policy).alarm_bytes IS NOT NULL),
           (1, 2, 'lose', (t.policy).on_lag = 'lose'),
           (1, 3, 'compact', (t.policy).compact),
           (2, 0, 'maintain_partitions', t.name IS NULL),
           (3, 0, 'remove', (t.policy).max_bytes IS NOT NULL OR (t.policy).when_settled AND (t.policy).min_age IS NULL
                            OR t.age > LEAST((t.policy).max_age, (t.policy).min_age)),
           (4, 0, 'maintain_partitions', t.name IS NULL),
           (5, 0, 'rewrite_partitions', t.name IS NULL),  -- not with the partitions: that would keep replays out for long
           (5, 1, 'record_times', t.name IS NULL),
           (6, 0, 'statistics', t.name IS NULL),
           (7, 0, 'alarms', t.name IS NULL AND (EXISTS (SELECT FROM durable_notify.operator_event)
                                                OR EXISTS (SELECT FROM durable_notify.operator_alarm)))) AS s (turn, ord, name, wanted)
     WHERE s.wanted
     ORDER BY s.turn, t.name, s.ord;
END
$function$;

CALL durable_notify._grantable('maintain_steps', '{maintain}', $$_require('maintain')$$);
