CREATE FUNCTION durable_notify.maintain_partitions() RETURNS bigint
LANGUAGE plpgsql VOLATILE
SET lock_timeout = '1s' SET search_path = pg_catalog, durable_notify, pg_temp AS $function$
DECLARE
    done bigint;
    closed bigint := COALESCE((SELECT l.closed_below FROM durable_notify.partition_settings l), 0);
BEGIN
    -- Do one thing that the outbox's partitions need; returns how much was done, 0: nothing, or not
    -- now. Call it, each time in a transaction of its own, until it returns 0.
    IF durable_notify._close_partitions() > closed THEN
        RETURN 1;  -- commit first: what comes next takes long, and changes of settings wait for this
    END IF;
    done := durable_notify._mark_unwanted();
    IF done = 0 THEN
        done := durable_notify._truncate_partition();
    END IF;
    IF done = 0 THEN
        done := durable_notify._drop_partition();
    END IF;
    RETURN done;
END
$function$;
