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
    -- Seconds until something of these topics comes back by the clock alone: a retry or delayed
    -- message that falls due, a lease that runs out, a limit that lets more through. NULL: nothing
    -- will; whatever else makes a message deliverable rings.
    --
    -- Ask after a claim that found nothing. So it is never 0: what is due by now, and was not to be had, is
    -- locked by an open transaction, as a lease is that is settled. Whether that commits or rolls back, which
    -- rings for nothing, is looked at after half of the time that it is overdue, 1 second at most.
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
            RETURN durable_notify.seconds_until(due);
        END IF;
        IF EXISTS (SELECT FROM durable_notify.active a
                    WHERE a.group_id = options.id AND durable_notify.fenced_leases(options.id, a.since) <> '{}') THEN
            RETURN 0.5;  -- an open transaction settles what the one before held
        END IF;
    END IF;
    IF options.max_in_flight IS NOT NULL THEN
        SELECT * INTO STRICT flight FROM durable_notify.in_flight(options.id);
        IF flight.messages >= options.max_in_flight THEN
            due := flight.until;  -- until then, or until a settle that rings
            IF flight.silent THEN
                due := LEAST(due, pg_catalog.clock_timestamp() + interval '0.5 seconds');
            END IF;
            RETURN durable_notify.seconds_until(due);
        END IF;
    END IF;
    RETURN durable_notify.seconds_until(durable_notify.due_in_topics(options, topics));
END
$function$;
