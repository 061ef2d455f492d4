CREATE FUNCTION durable_notify.maintain_partitions() RETURNS bigint
LANGUAGE plpgsql VOLATILE
SET lock_timeout = '1s' SET search_path = pg_catalog, durable_notify, pg_temp AS $function$
DECLARE
    done bigint;
    closed bigint := COALESCE((SELECT l.closed_below FROM durable_notify.partition_settings l), 0);
BEGIN
    -- Do one thing that is to be done about the log's leaves; returns how much was done, 0: nothing, or not
    -- now. Call it, each time in a transaction of its own, until it is.
    IF durable_notify._close_partitions() > closed THEN
        RETURN 1;  -- commit first: what comes next takes long, and who changes settings waits for this
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
