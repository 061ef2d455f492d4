CREATE FUNCTION durable_notify.read_horizon(group_id integer) RETURNS bigint
LANGUAGE plpgsql AS $function$
#variable_conflict use_column
DECLARE
    noted durable_notify.horizon;
    drawn bigint;
    writers xid[];
BEGIN
    -- The highest id up to which nothing can appear any more: how far a strict group may read, with
    -- a snapshot taken after this. The caller holds the group's lock.
    --
    -- Whoever drew an id up to `drawn` was publishing then. Not publishing any more at the look
    -- after it: its end was visible by then. Those who are, are noted, and waited for; those who
    -- begin later are not, or a busy topic would wait for ever.
    SELECT * INTO noted FROM durable_notify.horizon h WHERE h.group_id = read_horizon.group_id;
    SELECT CASE WHEN q.is_called THEN q.last_value ELSE 0 END INTO drawn FROM durable_notify.outbox_id_seq q;
    writers := durable_notify.publishing();
    IF pg_catalog.cardinality(writers) = 0 THEN
        RETURN drawn;
    END IF;
    IF noted.noted_id IS NOT NULL AND noted.waits_for && writers THEN
        RETURN noted.last_id;
    END IF;
    INSERT INTO durable_notify.horizon AS h (group_id, last_id, noted_id, waits_for)
    VALUES (read_horizon.group_id, COALESCE(noted.noted_id, 0), drawn, writers)
    ON CONFLICT (group_id) DO UPDATE
       SET last_id = EXCLUDED.last_id, noted_id = EXCLUDED.noted_id, waits_for = EXCLUDED.waits_for;
    RETURN COALESCE(noted.noted_id, 0);
END
$function$;
