CREATE FUNCTION durable_notify._read_window(
    topic text, INOUT pos durable_notify.position, max_ids integer, now_snapshot pg_snapshot, max_id bigint,
    OUT ids bigint[], OUT keyed boolean, OUT timed boolean
)
LANGUAGE plpgsql STABLE AS $function$
#variable_conflict use_column
DECLARE
    found bigint[];
    found_keyed boolean;
    found_timed boolean;
    opened_now boolean;
    low bigint;
BEGIN
    -- Read on from a position in the outbox: up to max_ids ids, none above max_id, and the position
    -- after them; whether one of them has a key, and whether one has a time of delivery or expiry.
    --
    -- A window holds what is visible in s1 and was not delivered before: first the stragglers (id <=
    -- h0, not visible in s0), then the rest (id > h0), each in id order. When an old window ends, one
    -- that ends at now_snapshot follows. This follows the snapshot batches of PgQ (Skytools,
    -- "pgq.next_batch"), with a position inside the batch and no ticker.
    -- STABLE reads under the caller's statement: it must have begun after now_snapshot was taken.
    -- Trap: a cursor "id > last" loses what commits late.
    ids := '{}';
    keyed := false;
    timed := false;
    IF max_ids <= 0 THEN
        RETURN;
    END IF;
    LOOP
        opened_now := pos.s1 IS NULL;
        IF opened_now THEN
            pos.s1 := now_snapshot;
            pos.h1 := NULL;
            pos.p := 0;
        END IF;
        -- Stragglers exist only if a transaction was running then, or has begun since and drawn a lower
        -- id: to call _stragglers() for nothing would take a tenth of a claim's time.
        low := GREATEST(pos.p, durable_notify._closed_below(pos.s0) - 1);
        IF low < pos.h0
           AND (pg_catalog.pg_snapshot_xmin(pos.s0) <> pg_catalog.pg_snapshot_xmax(pos.s0)
                OR (SELECT o.id FROM durable_notify.outbox o
                     WHERE o.topic = _read_window.topic AND o.xid >= pg_catalog.pg_snapshot_xmax(pos.s0)
                       AND o.xid < pg_catalog.pg_snapshot_xmax(pos.s1) AND o.id > low AND o.id <= pos.h0
                     ORDER BY o.xid, o.id LIMIT 1) IS NOT NULL) THEN
            found := ARRAY(SELECT durable_notify._stragglers(
                topic, pos.s0, pos.s1, low, pos.h0, max_ids - pg_catalog.cardinality(ids)));
            IF found <> '{}' THEN
                ids := ids || found;
                SELECT keyed OR pg_catalog.count(o.key) > 0,
                       timed OR pg_catalog.count(o.deliver_at) + pg_catalog.count(o.expires_at) > 0
                  INTO keyed, timed
                  FROM pg_catalog.unnest(found) AS late (id)
                 CROSS JOIN LATERAL durable_notify._message(_read_window.topic, late.id, low, pos.h0) AS o;
            END IF;
            IF pg_catalog.cardinality(ids) >= max_ids THEN
                pos.p := ids[pg_catalog.cardinality(ids)];
                EXIT;
            END IF;
        END IF;
        pos.p := GREATEST(pos.p, pos.h0);
        SELECT COALESCE(pg_catalog.array_agg(f.id), '{}'), pg_catalog.count(f.key) > 0,
               pg_catalog.count(f.deliver_at) + pg_catalog.count(f.expires_at) > 0
          INTO found, found_keyed, found_timed
          FROM (SELECT o.id, o.key, o.deliver_at, o.expires_at FROM durable_notify.outbox o
                 WHERE o.topic = _read_window.topic
                   AND o.id > pos.p AND o.id <= LEAST(pos.h1, max_id, 9223372036854775807)
                   AND pg_catalog.pg_visible_in_snapshot(o.xid, pos.s1)
                 ORDER BY o.id
                 LIMIT max_ids - pg_catalog.cardinality(ids)) AS f;
        keyed := keyed OR found_keyed;
        timed := timed OR found_timed;
        ids := ids || found;
        IF pg_catalog.cardinality(found) > 0 THEN
            pos.p := found[pg_catalog.cardinality(found)];
        END IF;
        EXIT WHEN pg_catalog.cardinality(ids) >= max_ids;
        pos.s0 := pos.s1;
        pos.h0 := pos.p;
        pos.s1 := NULL;
        pos.h1 := NULL;
        pos.p := 0;
        EXIT WHEN opened_now;
    END LOOP;
    IF pos.s1 IS NOT NULL AND pos.h1 IS NULL THEN
        -- The window stays open: bound its scan, or it would pass over all that comes after. Trap: by
        -- max_id as well. Without it, a strict group that may read further later would get what was
        -- visible in s1 before lower ids that were not.
        pos.h1 := LEAST(durable_notify.last_id(topic), max_id);
    END IF;
END
$function$;
