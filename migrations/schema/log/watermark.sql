CREATE FUNCTION durable_notify._group_watermark(group_id integer) RETURNS bigint
LANGUAGE plpgsql AS $function$
#variable_conflict use_column
DECLARE
    recorded durable_notify.group_watermark;
    drawn bigint;
    writers xid[];
BEGIN
    -- The highest id up to which nothing can appear any more: how far a strict group may read, with
    -- a snapshot taken after this. The caller holds the group's lock.
    --
    -- Whoever drew an id up to `drawn` was publishing then. Not publishing any more at the look
    -- after it: its end was visible by then. Those who are, are noted, and waited for; those who
    -- begin later are not, or a busy topic would wait for ever.
    SELECT * INTO recorded FROM durable_notify.group_watermark h WHERE h.group_id = _group_watermark.group_id;
    SELECT CASE WHEN q.is_called THEN q.last_value ELSE 0 END INTO drawn FROM durable_notify.outbox_id_seq q;
    writers := durable_notify._open_publishers();
    IF pg_catalog.cardinality(writers) = 0 THEN
        RETURN drawn;
    END IF;
    IF recorded.noted_id IS NOT NULL AND recorded.waits_for && writers THEN
        RETURN recorded.last_id;
    END IF;
    INSERT INTO durable_notify.group_watermark AS h (group_id, last_id, noted_id, waits_for)
    VALUES (_group_watermark.group_id, COALESCE(recorded.noted_id, 0), drawn, writers)
    ON CONFLICT (group_id) DO UPDATE
       SET last_id = EXCLUDED.last_id, noted_id = EXCLUDED.noted_id, waits_for = EXCLUDED.waits_for;
    RETURN COALESCE(recorded.noted_id, 0);
END
$function$;

CREATE FUNCTION durable_notify._advance_watermark() RETURNS bigint
LANGUAGE plpgsql
SET lock_timeout = '1s' SET search_path = pg_catalog, durable_notify, pg_temp AS $function$
DECLARE
    recorded durable_notify.watermark;
    drawn bigint;
    writers xid[];
BEGIN
    -- Find and note the highest id up to which nothing can appear any more, whatever is in flight; see
    -- _group_watermark(). What is removed, compacted or archived is below it: no message commits late there.
    INSERT INTO durable_notify.watermark (last_id, waits_for) VALUES (0, '{}') ON CONFLICT DO NOTHING;
    SELECT * INTO STRICT recorded FROM durable_notify.watermark FOR UPDATE;
    SELECT CASE WHEN q.is_called THEN q.last_value ELSE 0 END INTO drawn FROM durable_notify.outbox_id_seq q;
    -- Trap: the ids first, the publishers after. The other way round who begins in between is in neither.
    writers := durable_notify._open_publishers();
    IF pg_catalog.cardinality(writers) = 0 THEN
        recorded.last_id := drawn;
        recorded.noted_id := NULL;
    ELSIF recorded.noted_id IS NOT NULL AND recorded.waits_for && writers THEN
        RETURN recorded.last_id;
    ELSE
        recorded.last_id := COALESCE(recorded.noted_id, recorded.last_id);
        recorded.noted_id := drawn;
    END IF;
    UPDATE durable_notify.watermark SET last_id = recorded.last_id, noted_id = recorded.noted_id, waits_for = writers;
    RETURN recorded.last_id;
END
$function$;

CREATE FUNCTION durable_notify._watermark() RETURNS bigint
LANGUAGE sql STABLE AS $function$
    -- Below which id nothing can appear any more, as far as _advance_watermark() has noted.
    SELECT COALESCE((SELECT s.last_id + 1 FROM durable_notify.watermark s), 1)
$function$;

CREATE FUNCTION durable_notify._set_closed_below(below bigint, since xid8) RETURNS void
LANGUAGE plpgsql VOLATILE AS $function$
BEGIN
    -- Write _closed_below() anew: leaves with ids below are closed, for snapshots taken after a transaction.
    EXECUTE pg_catalog.format(
        'CREATE OR REPLACE FUNCTION durable_notify._closed_below(seen pg_snapshot) RETURNS bigint'
        ' LANGUAGE sql IMMUTABLE PARALLEL SAFE AS %L',
        (SELECT pg_catalog.regexp_replace(p.prosrc, 'SELECT .*$', '') FROM pg_catalog.pg_proc p
          WHERE p.oid = 'durable_notify._closed_below(pg_snapshot)'::regprocedure)  -- its documentation
        || CASE WHEN below = 0 THEN E'SELECT 0::bigint\n' ELSE pg_catalog.format(
               E'SELECT CASE WHEN pg_catalog.pg_snapshot_xmax(seen) OPERATOR(pg_catalog.>) ''%s''::pg_catalog.xid8'
               ' THEN %s::bigint ELSE 0::bigint END\n', since, below) END);
END
$function$;
