CREATE FUNCTION durable_notify.due_in_topics(options durable_notify.consumer_group, topics text[]) RETURNS timestamptz
LANGUAGE plpgsql VOLATILE AS $function$
#variable_conflict use_column
DECLARE
    due timestamptz;
    writing boolean := options.order_by = 'strict' AND pg_catalog.cardinality(durable_notify.publishing()) > 0;
    look boolean := NOT writing AND (options.order_by = 'strict' OR options.exclusive OR options.max_in_flight IS NOT NULL);
BEGIN
    -- When something of some topics comes back to a group by the clock alone, as its order and rate allow.
    SELECT pg_catalog.min(t.due_at) INTO due
      FROM durable_notify.subscription s
     CROSS JOIN LATERAL durable_notify.due_in_topic(s, options, look) AS t (due_at)
     WHERE s.group_id = options.id AND s.topic = ANY (topics)
       AND (look OR durable_notify.has_something_under_way(s.id));
    IF options.rate_limit IS NOT NULL THEN
        -- Used up: nothing before there is one again, and then there may be, whatever is due.
        due := COALESCE((
            SELECT a.at + pg_catalog.make_interval(secs => (1 - a.tokens) / options.rate_limit)
              FROM durable_notify.allowance a WHERE a.group_id = options.id AND a.tokens < 1), due);
    END IF;
    IF writing THEN
        -- A publisher that rolls back rings no bell.
        due := LEAST(due, pg_catalog.clock_timestamp() + interval '0.1 second');
    END IF;
    RETURN due;
END
$function$;
