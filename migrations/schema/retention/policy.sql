CREATE FUNCTION durable_notify._retention_for(topic text) RETURNS durable_notify.topic_retention
LANGUAGE plpgsql STABLE STRICT AS $function$
#variable_conflict use_column
DECLARE
    found durable_notify.topic_retention;
BEGIN
    -- The retention of a topic: the most specific of all that match it; NULL: there is none, it is kept
    -- for ever.
    SELECT r.* INTO found FROM durable_notify.topic_retention r
     WHERE _retention_for.topic ~ r.regex ORDER BY r.rank LIMIT 1;
    RETURN found;
END
$function$;

CREATE FUNCTION durable_notify._policy_watermark(topic text, policy durable_notify.topic_retention) RETURNS bigint
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, durable_notify, pg_temp AS $function$
#variable_conflict use_column
DECLARE
    below bigint := 0;
BEGIN
    -- Below which id a topic's messages are past their age, or over its size. Whether groups still need
    -- them is decided elsewhere.
    IF policy.max_age IS NOT NULL THEN
        below := COALESCE(durable_notify._first_id_since(topic, pg_catalog.clock_timestamp() - policy.max_age), 0);
    END IF;
    IF policy.max_bytes IS NOT NULL THEN
        -- The messages younger than a stretch that is removed fill the limit by themselves.
        below := GREATEST(below, (
            SELECT e.upto_id + 1 FROM (
                SELECT x.upto_id, pg_catalog.sum(x.bytes) OVER (ORDER BY x.upto_id DESC) - x.bytes AS younger
                  FROM durable_notify.topic_size x WHERE x.topic = _policy_watermark.topic) AS e
             WHERE e.younger >= policy.max_bytes ORDER BY e.upto_id DESC LIMIT 1));
    END IF;
    RETURN below;
END
$function$;

CREATE FUNCTION durable_notify._due_watermark(topic text, policy durable_notify.topic_retention) RETURNS bigint
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, durable_notify, pg_temp AS $function$
#variable_conflict use_column
DECLARE
    below bigint := durable_notify._policy_watermark(topic, policy);
BEGIN
    -- Below which id a topic's messages are to be removed as far as their retention says, once every
    -- group has settled them. What no group reads stays under when_settled: no group has settled it.
    IF policy.when_settled AND EXISTS (SELECT FROM durable_notify.subscription s WHERE s.topic = _due_watermark.topic) THEN
        below := GREATEST(below, CASE
            WHEN policy.min_age IS NULL THEN 9223372036854775807
            ELSE durable_notify._first_id_since(topic, pg_catalog.clock_timestamp() - policy.min_age) END);
    END IF;
    RETURN below;
END
$function$;

CREATE FUNCTION durable_notify._first_id_since(topic text, since timestamptz) RETURNS bigint
LANGUAGE plpgsql STABLE STRICT
SET enable_seqscan = off SET enable_bitmapscan = off SET enable_sort = off SET jit = off
SET search_path = pg_catalog, durable_notify, pg_temp AS $function$
#variable_conflict use_column
DECLARE
    older bigint;
    found_at timestamptz;
    next_id bigint;
    middle bigint;
    first_since bigint;
    top bigint;
BEGIN
    -- The first id of a topic from a time on; past its last id if there is none, NULL if the topic is
    -- empty. Found by bisection, with some 60 probes at most: ids and times run in step, except for
    -- moments and for a clock that was set.
    SELECT o.id, o.created_at INTO older, found_at FROM durable_notify.outbox o
     WHERE o.topic = _first_id_since.topic ORDER BY o.id LIMIT 1;
    IF older IS NULL OR found_at >= since THEN
        RETURN older;
    END IF;
    SELECT o.id, o.created_at INTO first_since, found_at FROM durable_notify.outbox o
     WHERE o.topic = _first_id_since.topic ORDER BY o.id DESC LIMIT 1;
    IF found_at < since THEN
        RETURN first_since + 1;
    END IF;
    top := first_since - 1;  -- what is looked for is first_since, or in (older, top]
    WHILE older < top LOOP
        middle := older + (top - older) / 2;
        SELECT o.id, o.created_at INTO next_id, found_at FROM durable_notify.outbox o
         WHERE o.topic = _first_id_since.topic AND o.id > middle AND o.id <= top ORDER BY o.id LIMIT 1;
        IF next_id IS NULL THEN
            top := middle;
        ELSIF found_at >= since THEN
            first_since := next_id;
            top := middle;
        ELSE
            older := next_id;
        END IF;
    END LOOP;
    RETURN first_since;
END
$function$;
