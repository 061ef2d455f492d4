CREATE FUNCTION durable_notify.wake(topic text, hint text) RETURNS void
LANGUAGE plpgsql VOLATILE AS $function$
DECLARE
    policy text := durable_notify.wakeups(topic);
BEGIN
    -- Notify who waits for a topic, as its policy says, when this transaction commits; see ring().
    IF policy OPERATOR(pg_catalog.=) 'never' THEN
        RETURN;
    END IF;
    IF policy OPERATOR(pg_catalog.=) 'always' OR durable_notify.somebody_waits(topic) THEN
        PERFORM pg_catalog.pg_notify(durable_notify.channel(topic), hint);
    END IF;
    IF policy OPERATOR(pg_catalog.=) 'always' OR durable_notify.somebody_waits('') THEN
        PERFORM pg_catalog.pg_notify('durable_notify', topic);  -- who consumes by pattern
    END IF;
END
$function$;
