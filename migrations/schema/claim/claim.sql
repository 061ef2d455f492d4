CREATE FUNCTION durable_notify.claim(
    group_name text, topics text[], max_messages integer DEFAULT 100, lease interval DEFAULT '30 seconds',
    owner text DEFAULT NULL, consumer text DEFAULT NULL
) RETURNS TABLE (
    token bigint, id bigint, topic text, key text, payload jsonb, data bytea, headers jsonb,
    published_at timestamptz, attempt integer, order_key text
)
LANGUAGE plpgsql VOLATILE ROWS 100
SET enable_seqscan = off SET enable_bitmapscan = off SET enable_hashjoin = off SET enable_mergejoin = off
SET enable_sort = off SET jit = off
SET plan_cache_mode = force_generic_plan SET lock_timeout = '5s'
SET search_path = pg_catalog, durable_notify, pg_temp AS $function$
#variable_conflict use_column
DECLARE
    claimed bigint := 0;
    allowed bigint;
    found bigint;
    source text;
    options durable_notify.consumer_group;
    max_id bigint;
    now_snapshot pg_snapshot;
BEGIN
    -- Deliver up to max_messages messages of some of a group's topics to one consumer, until the
    -- lease's deadline by the database's clock. No rows: there is nothing to deliver now.
    --
    -- Commit at once: other claims of the group wait meanwhile. Each token identifies a lease:
    -- settle(token, ...) ends it, extend() prolongs it, release() gives it back. A busy group is not an
    -- empty one: SQLSTATE 55P03 after 5 seconds.
    -- consumer tells the consumers of an exclusive group apart (default: owner). owner is for people
    -- who look at the leases. order_key: what the group keeps the message in order by, if it keeps
    -- order.
    IF NOT durable_notify._is_owner() THEN
        RETURN QUERY SELECT * FROM durable_notify._claim_granted(group_name, topics, max_messages, lease, owner, consumer);
        RETURN;
    END IF;
    IF pg_catalog.pg_current_xact_id_if_assigned() IS NOT NULL
       OR pg_catalog.current_setting('transaction_isolation') <> 'read committed' THEN
        -- A snapshot leaves its own xid out, so a stale position would be read again.
        RAISE EXCEPTION 'claim() must be in a READ COMMITTED transaction of its own'
            USING ERRCODE = 'DN004', HINT = 'Run it in autocommit mode, or right after BEGIN, and commit.';
    END IF;
    IF max_messages IS NULL OR max_messages NOT BETWEEN 1 AND 10000 OR lease IS NULL OR lease <= '0' THEN
        RAISE EXCEPTION 'claim 1 to 10000 messages for a positive interval, not % for %', max_messages, lease
            USING ERRCODE = '22023';
    END IF;
    options := durable_notify._lock_group(group_name);
    IF options.paused_at IS NOT NULL
       OR options.exclusive AND NOT durable_notify._try_activate(options, COALESCE(consumer, owner), lease) THEN
        RETURN;
    END IF;
    allowed := max_messages;
    IF options.max_in_flight IS NOT NULL OR options.rate_limit IS NOT NULL THEN
        allowed := durable_notify._delivery_quota(options, max_messages);
    END IF;
    IF options.order_by = 'strict' THEN
        max_id := durable_notify._advance_watermark(options.id);
    END IF;
    now_snapshot := pg_catalog.pg_current_snapshot();
    IF pg_catalog.cardinality(topics) > 1 THEN
        topics := durable_notify._topics_to_claim(options, topics);
    END IF;
    FOREACH source IN ARRAY COALESCE(topics, '{}') LOOP
        EXIT WHEN claimed >= allowed;
        RETURN QUERY SELECT * FROM durable_notify._claim_topic(
            options, source, now_snapshot, max_id, (allowed - claimed)::integer, lease, owner);
        GET DIAGNOSTICS found = ROW_COUNT;
        claimed := claimed + found;
    END LOOP;
    IF options.rate_limit IS NOT NULL AND claimed > 0 THEN
        UPDATE durable_notify.rate_bucket a SET tokens = a.tokens - claimed WHERE a.group_id = options.id;
    END IF;
END
$function$;

CALL durable_notify._grantable('claim', '{consume}', $$_require('consume', topics, group_name)$$);
