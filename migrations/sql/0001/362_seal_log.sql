CREATE FUNCTION durable_notify.seal_log() RETURNS bigint
LANGUAGE plpgsql
SET lock_timeout = '1s' SET search_path = pg_catalog, durable_notify, pg_temp AS $function$
DECLARE
    noted durable_notify.seal;
    drawn bigint;
    writers xid[];
BEGIN
    -- Find and note the highest id up to which nothing can appear any more, whatever is in flight; see
    -- read_horizon(). What is removed, compacted or archived is below it: no message commits late there.
    INSERT INTO durable_notify.seal (last_id, waits_for) VALUES (0, '{}') ON CONFLICT DO NOTHING;
    SELECT * INTO STRICT noted FROM durable_notify.seal FOR UPDATE;
    SELECT CASE WHEN q.is_called THEN q.last_value ELSE 0 END INTO drawn FROM durable_notify.outbox_id_seq q;
    -- Trap: the ids first, the publishers after. The other way round who begins in between is in neither.
    writers := durable_notify.publishing();
    IF pg_catalog.cardinality(writers) = 0 THEN
        noted.last_id := drawn;
        noted.noted_id := NULL;
    ELSIF noted.noted_id IS NOT NULL AND noted.waits_for && writers THEN
        RETURN noted.last_id;
    ELSE
        noted.last_id := COALESCE(noted.noted_id, noted.last_id);
        noted.noted_id := drawn;
    END IF;
    UPDATE durable_notify.seal SET last_id = noted.last_id, noted_id = noted.noted_id, waits_for = writers;
    RETURN noted.last_id;
END
$function$;
