CREATE FUNCTION durable_notify.next_due(group_name text, topics text[], consumer text DEFAULT NULL)
RETURNS double precision
LANGUAGE plpgsql
SET search_path = pg_catalog, durable_notify, pg_temp AS $function$
#variable_conflict use_column
DECLARE
    options durable_notify.consumer_group;
    now_time timestamptz := pg_catalog.clock_timestamp();
    due timestamptz;
    full_up boolean;
    writing boolean;
    look boolean;
BEGIN
    -- Seconds until something of these topics comes back by the clock alone: a retry or delayed
    -- message that falls due, a lease that runs out, a limit that lets more through. NULL: nothing
    -- will; whatever else makes a message deliverable rings. Not below 0.
    IF NOT durable_notify.has_own_rights() THEN
        RETURN durable_notify.next_due_granted(group_name, topics, consumer);
    END IF;
    SELECT * INTO options FROM durable_notify.consumer_group g WHERE g.name = group_name;
    IF options.id IS NULL OR options.paused_at IS NOT NULL THEN
        RETURN NULL;
    END IF;
    IF options.exclusive THEN
        SELECT a.deadline INTO due FROM durable_notify.active a
         WHERE a.group_id = options.id AND a.consumer IS DISTINCT FROM next_due.consumer;
        IF FOUND THEN
            RETURN GREATEST(0, EXTRACT(epoch FROM LEAST(due, now_time + interval '1 year') - now_time));
        END IF;
    END IF;
    writing := options.order_by = 'strict' AND pg_catalog.cardinality(durable_notify.publishing()) > 0;
    look := NOT writing AND (options.order_by = 'strict' OR options.exclusive OR options.max_in_flight IS NOT NULL);
    full_up := options.max_in_flight IS NOT NULL AND durable_notify.in_flight(options.id) >= options.max_in_flight;
    FOR _turn IN 1 .. 2 LOOP
        SELECT pg_catalog.min(t.due_at) INTO due
          FROM durable_notify.subscription s
         CROSS JOIN LATERAL durable_notify.due_in_topic(s, options, full_up, look) AS t (due_at)
         WHERE s.group_id = options.id AND s.topic = ANY (topics)
           AND (look OR durable_notify.has_something_under_way(s.id));
        EXIT WHEN due IS NOT NULL OR NOT full_up;
        full_up := false;  -- what filled it up was settled meanwhile
    END LOOP;
    IF options.rate_limit IS NOT NULL AND NOT full_up THEN
        -- Used up: nothing before there is one again, and then there may be, whatever is due.
        due := COALESCE((
            SELECT a.at + pg_catalog.make_interval(secs => (1 - a.tokens) / options.rate_limit)
              FROM durable_notify.allowance a WHERE a.group_id = options.id AND a.tokens < 1), due);
    END IF;
    IF writing THEN
        -- A publisher that rolls back rings nobody.
        due := LEAST(due, now_time + interval '0.1 second');
    END IF;
    -- GREATEST would make 0 of NULL. Trap: a message may be for 'infinity', from which nothing can be taken.
    due := CASE WHEN due IS NOT NULL THEN LEAST(GREATEST(due, now_time), now_time + interval '1 year') END;
    RETURN CASE WHEN due IS NOT NULL THEN GREATEST(0, EXTRACT(epoch FROM due - pg_catalog.clock_timestamp())) END;
END
$function$;
