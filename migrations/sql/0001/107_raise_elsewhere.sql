CREATE FUNCTION durable_notify.raise_elsewhere() RETURNS void
LANGUAGE plpgsql AS $function$
BEGIN
    -- Refuse to read where the log does not stand where it was written; see the table anchor.
    IF NOT EXISTS (SELECT FROM durable_notify.anchor) THEN
        RAISE EXCEPTION 'the table durable_notify.anchor is empty, as after a TRUNCATE of all tables: without it nothing is read'
            USING ERRCODE = 'DN010',
                  HINT = 'Where nothing else is to be kept, as in tests: SELECT durable_notify.empty_all(), now and in place of '
                         'TRUNCATE. Where messages are, run: durable-notify reanchor';
    END IF;
    RAISE EXCEPTION 'these messages were restored from, or replicated by, another cluster, whose transaction ids mean nothing here'
        USING ERRCODE = 'DN010',
              HINT = 'Nothing is lost. End what still copies into this database, then run: durable-notify reanchor';
END
$function$;
