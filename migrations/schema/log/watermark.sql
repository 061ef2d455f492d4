CREATE FUNCTION durable_notify._advance_watermark(group_id integer DEFAULT 0) RETURNS bigint
LANGUAGE plpgsql
SET lock_timeout = '1s' SET search_path = pg_catalog, durable_notify, pg_temp AS $function$
#variable_conflict use_column
DECLARE
    recorded durable_notify.watermark;
    drawn bigint;
    writers xid[];
BEGIN
    -- Find the highest id up to which nothing can appear any more, whatever is in flight.
    --
    -- A strict group reads no further, with a snapshot taken after this; its caller holds the group's
    -- lock. 0 stands for the outbox: maintenance removes, compacts and archives only below its
    -- watermark, because no message commits late there.
    --
    -- Every transaction that drew an id up to `drawn` was publishing then. If it is not publishing at
    -- the look after that, its end was visible by then. Those that still publish are recorded, and
    -- waited for. Those that begin later are not, or a busy topic would wait for ever.
    -- The lock on the outbox comes first, and a TRUNCATE waits for it. It may have ids drawn again from
    -- 1, and deletes what was recorded of the old ones: then no claim may have written its row, nor
    -- rely on the old ids.
    LOCK TABLE ONLY durable_notify.outbox IN ACCESS SHARE MODE;
    IF group_id = 0 THEN
        INSERT INTO durable_notify.watermark (group_id, last_id, publishers) VALUES (0, 0, '{}') ON CONFLICT DO NOTHING;
        PERFORM FROM durable_notify.watermark w WHERE w.group_id = 0 FOR UPDATE;
    END IF;
    SELECT * INTO recorded FROM durable_notify.watermark w WHERE w.group_id = _advance_watermark.group_id;
    SELECT CASE WHEN q.is_called THEN q.last_value ELSE 0 END INTO drawn FROM durable_notify.outbox_id_seq q;
    -- Trap: the ids first, the publishers after. The other way round, one that begins in between is in neither.
    writers := durable_notify._open_publishers();
    IF pg_catalog.cardinality(writers) = 0 THEN
        IF group_id <> 0 THEN
            RETURN drawn;  -- nothing is written: each claim asks this
        END IF;
        recorded.last_id := drawn;
        recorded.pending_id := NULL;
    ELSIF recorded.pending_id IS NOT NULL AND recorded.publishers && writers THEN
        RETURN recorded.last_id;
    ELSE
        recorded.last_id := COALESCE(recorded.pending_id, recorded.last_id, 0);
        recorded.pending_id := drawn;
    END IF;
    INSERT INTO durable_notify.watermark AS w (group_id, last_id, pending_id, publishers)
    VALUES (_advance_watermark.group_id, recorded.last_id, recorded.pending_id, writers)
    ON CONFLICT (group_id) DO UPDATE
       SET last_id = EXCLUDED.last_id, pending_id = EXCLUDED.pending_id, publishers = EXCLUDED.publishers;
    RETURN recorded.last_id;
END
$function$;

CREATE FUNCTION durable_notify._watermark() RETURNS bigint
LANGUAGE sql STABLE AS $function$
    -- Below which id nothing can appear any more, as far as _advance_watermark() has recorded.
    SELECT COALESCE((SELECT w.last_id + 1 FROM durable_notify.watermark w WHERE w.group_id = 0), 1)
$function$;

CREATE FUNCTION durable_notify._set_closed_below(below bigint, since xid8) RETURNS void
LANGUAGE sql AS $function$
    -- Rewrite _closed_below(): partitions with ids below are closed, for snapshots taken after a
    -- transaction.
    SELECT durable_notify._rewrite_inlined(
        'durable_notify._closed_below(pg_snapshot)',
        CASE WHEN below > 0 THEN pg_catalog.format(
            'WHEN pg_catalog.pg_snapshot_xmax(seen) OPERATOR(pg_catalog.>) %L::pg_catalog.xid8 THEN %s::bigint', since, below) END,
        '0::bigint')
$function$;
