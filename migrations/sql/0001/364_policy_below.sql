CREATE FUNCTION durable_notify.policy_below(topic text, policy durable_notify.topic_retention) RETURNS bigint
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, durable_notify, pg_temp AS $function$
#variable_conflict use_column
DECLARE
    below bigint := 0;
BEGIN
    -- Below which id a topic's messages are past their age, or over its size. Whether groups still need
    -- them is another matter.
    IF policy.max_age IS NOT NULL THEN
        below := COALESCE(durable_notify.first_id_since(topic, pg_catalog.clock_timestamp() - policy.max_age), 0);
    END IF;
    IF policy.max_bytes IS NOT NULL THEN
        -- What is younger than a stretch that goes fills the limit by itself.
        below := GREATEST(below, (
            SELECT e.upto_id + 1 FROM (
                SELECT x.upto_id, pg_catalog.sum(x.bytes) OVER (ORDER BY x.upto_id DESC) - x.bytes AS younger
                  FROM durable_notify.topic_extent x WHERE x.topic = policy_below.topic) AS e
             WHERE e.younger >= policy.max_bytes ORDER BY e.upto_id DESC LIMIT 1));
    END IF;
    RETURN below;
END
$function$;
