CREATE FUNCTION durable_notify.raise_elsewhere() RETURNS void
LANGUAGE plpgsql AS $function$
BEGIN
    -- Refuse to read where the log does not stand where it was written; see the table anchor.
    RAISE EXCEPTION 'these messages were restored from, or replicated by, another cluster, whose transaction ids mean nothing here'
        USING ERRCODE = 'DN010',
              HINT = 'Nothing is lost. End what still copies into this database, then run: durable-notify reanchor';
END
$function$;
