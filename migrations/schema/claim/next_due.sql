CREATE FUNCTION durable_notify.next_due(group_name text, topics text[], consumer text DEFAULT NULL)
RETURNS double precision
LANGUAGE plpgsql
SET search_path = pg_catalog, durable_notify, pg_temp AS $function$
#variable_conflict use_column
DECLARE
    options durable_notify.consumer_group;
    flight record;
    due timestamptz;
BEGIN
    -- Seconds until some messages of these topics become deliverable by the clock alone: a retry or
    -- delayed message that falls due, a lease that expires, a limit that lets more through. NULL:
    -- nothing will; whatever else makes a message deliverable rings.
    --
    -- Ask after a claim that found nothing. So it is never 0: if a message is due and the claim did not
    -- get it, an open transaction has locked it, as it locks a lease that it settles. It may roll back,
    -- which rings for nothing. So look again after half of the time that the message is overdue, after
    -- 1 second at most.
    IF NOT durable_notify._is_owner() THEN
        RETURN durable_notify._next_due_granted(group_name, topics, consumer);
    END IF;
    SELECT * INTO options FROM durable_notify.consumer_group g WHERE g.name = group_name;
    IF options.id IS NULL OR options.paused_at IS NOT NULL THEN
        RETURN NULL;
    END IF;
    IF options.exclusive THEN
        SELECT a.deadline INTO due FROM durable_notify.active_consumer a
         WHERE a.group_id = options.id AND a.consumer IS DISTINCT FROM next_due.consumer;
        IF FOUND THEN
            RETURN durable_notify._seconds_until(due);
        END IF;
        IF EXISTS (SELECT FROM durable_notify.active_consumer a
                    WHERE a.group_id = options.id AND durable_notify._fenced_leases(options.id, a.since) <> '{}') THEN
            RETURN 0.5;  -- an open transaction settles what the one before held
        END IF;
    END IF;
    IF options.max_in_flight IS NOT NULL THEN
        SELECT * INTO STRICT flight FROM durable_notify._in_flight(options.id);
        IF flight.messages >= options.max_in_flight THEN
            RETURN durable_notify._seconds_until(flight.until);
        END IF;
    END IF;
    RETURN durable_notify._seconds_until(durable_notify._next_due_in_topics(options, topics));
END
$function$;

CREATE FUNCTION durable_notify._seconds_until(due timestamptz) RETURNS double precision
LANGUAGE sql VOLATILE AS $function$
    -- How long to wait for a due time; NULL: it never comes. If it has passed, half as long as that is
    -- ago, between 10 milliseconds and 1 second: a wait that grows, for what is due but locked.
    -- Trap: a message may be for 'infinity', from which nothing can be subtracted.
    SELECT CASE WHEN w.seconds > 0 THEN w.seconds ELSE LEAST(1, GREATEST(0.01, w.seconds / -2)) END
      FROM (SELECT EXTRACT(epoch FROM GREATEST('epoch', LEAST(due, pg_catalog.clock_timestamp() + interval '1 year'))
                                      - pg_catalog.clock_timestamp())::double precision) AS w (seconds)
     WHERE due IS NOT NULL
$function$;

CREATE FUNCTION durable_notify._next_due_in_topics(options durable_notify.consumer_group, topics text[]) RETURNS timestamptz
LANGUAGE plpgsql VOLATILE AS $function$
#variable_conflict use_column
DECLARE
    due timestamptz;
    writing boolean := options.order_by = 'strict' AND pg_catalog.cardinality(durable_notify._open_publishers()) > 0;
    look boolean := NOT writing AND (options.order_by = 'strict' OR options.exclusive OR options.max_in_flight IS NOT NULL);
BEGIN
    -- When some messages of some topics become deliverable to a group by the clock alone, as its order
    -- and rate allow.
    SELECT pg_catalog.min(t.due_at) INTO due
      FROM durable_notify.subscription s
     CROSS JOIN LATERAL durable_notify._next_due_in_topic(s, options, look) AS t (due_at)
     WHERE s.group_id = options.id AND s.topic = ANY (topics)
       AND (look OR durable_notify._may_become_due(s.id));
    IF options.rate_limit IS NOT NULL THEN
        -- Used up: nothing is delivered before a token is there again, whatever is due.
        due := COALESCE((
            SELECT a.at + pg_catalog.make_interval(secs => (1 - a.tokens) / options.rate_limit)
              FROM durable_notify.rate_bucket a WHERE a.group_id = options.id AND a.tokens < 1), due);
    END IF;
    IF writing THEN
        -- A publisher that rolls back rings no bell.
        due := LEAST(due, pg_catalog.clock_timestamp() + interval '0.1 second');
    END IF;
    RETURN due;
END
$function$;

CREATE FUNCTION durable_notify._next_due_in_topic(
    subscription durable_notify.subscription, options durable_notify.consumer_group, look boolean
) RETURNS timestamptz
LANGUAGE plpgsql STABLE
SET enable_seqscan = off SET enable_bitmapscan = off SET enable_hashjoin = off SET enable_mergejoin = off
SET enable_sort = off SET jit = off SET plan_cache_mode = force_generic_plan AS $function$
#variable_conflict use_column
DECLARE
    now_time timestamptz := pg_catalog.clock_timestamp();
    pos durable_notify.position;
    due timestamptz;
    heads timestamptz;
    busy text[];
BEGIN
    -- When some messages of a topic become deliverable to a group by the clock alone. look: now, if the
    -- outbox has something to read, since what kept a claim from reading may be over.
    SELECT * INTO STRICT pos FROM durable_notify.position p
     WHERE p.subscription_id = subscription.id ORDER BY p.seq DESC LIMIT 1;
    -- A lease of before the order was changed rings for nothing when it is settled.
    SELECT pg_catalog.min(durable_notify._lease_ends(
               COALESCE(h.deadline, l.deadline), l.wake_hint IS NOT NULL OR l.order_by = options.order_by)) INTO due
      FROM pg_catalog.unnest(pos.lease_tokens) AS held (token)
      JOIN durable_notify.lease l ON l.token = held.token
      LEFT JOIN durable_notify.lease_deadline h ON h.token = held.token;
    IF options.order_by = 'strict' AND due IS NOT NULL THEN
        RETURN due;  -- until then, or until a settle that rings
    END IF;
    due := LEAST(due, (
        SELECT d.due_at FROM durable_notify.deferred d
         WHERE d.subscription_id = subscription.id AND d.key IS NULL ORDER BY d.due_at LIMIT 1));
    IF EXISTS (SELECT FROM durable_notify.deferred d WHERE d.subscription_id = subscription.id AND d.key IS NOT NULL) THEN
        busy := durable_notify._keys_in_flight(pos.lease_tokens, ARRAY(
            SELECT w.key FROM durable_notify._parked_heads(subscription.id) w WHERE w.due_at <= now_time), options.order_by);
        SELECT pg_catalog.min(w.due_at) INTO heads
          FROM durable_notify._parked_heads(subscription.id) w WHERE w.due_at > now_time OR w.key <> ALL (busy);
        due := LEAST(due, heads);
    END IF;
    IF (look OR pos.s1 IS NOT NULL AND options.order_by <> 'strict')
       AND durable_notify._read_quota(subscription.id, options, 1) > 0
       AND (SELECT pg_catalog.cardinality(r.ids) FROM durable_notify._read_window(
                subscription.topic, pos, 1, pg_catalog.pg_current_snapshot(), NULL) AS r) > 0 THEN
        RETURN now_time;
    END IF;
    RETURN due;
END
$function$;

CREATE FUNCTION durable_notify._may_become_due(subscription_id integer) RETURNS boolean
LANGUAGE sql STABLE STRICT AS $function$
    -- Return whether any message of a topic may become deliverable to a group by the clock. It probes
    -- two indexes, so that a group with hundreds of quiet topics sleeps at little cost.
    SELECT (SELECT p.lease_tokens <> '{}' OR p.s1 IS NOT NULL FROM durable_notify.position p
             WHERE p.subscription_id = _may_become_due.subscription_id ORDER BY p.seq DESC LIMIT 1)
        OR EXISTS (SELECT FROM durable_notify.deferred d
                    WHERE d.subscription_id = _may_become_due.subscription_id)
$function$;

CALL durable_notify._grantable('next_due', '{consume}', $$_require('consume', topics, group_name)$$);
