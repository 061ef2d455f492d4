CREATE FUNCTION durable_notify._delivery_quota(options durable_notify.consumer_group, wanted integer) RETURNS integer
LANGUAGE plpgsql AS $function$
#variable_conflict use_column
DECLARE
    tokens double precision;
BEGIN
    -- How many messages may be delivered to a group now by its limits. The caller holds its lock.
    --
    -- The rate is a token bucket that holds one second's worth. A leased message counts as in flight
    -- until it is settled, or its lease has expired.
    IF options.max_in_flight IS NOT NULL THEN
        wanted := LEAST(wanted, options.max_in_flight - (durable_notify._in_flight(options.id)).messages);
    END IF;
    IF options.rate_limit IS NOT NULL THEN
        INSERT INTO durable_notify.rate_bucket AS a (group_id, tokens, at)
        VALUES (options.id, GREATEST(1, options.rate_limit), pg_catalog.clock_timestamp())
        ON CONFLICT (group_id) DO UPDATE
           SET tokens = LEAST(GREATEST(1, options.rate_limit), a.tokens + options.rate_limit
                              * GREATEST(0, EXTRACT(epoch FROM EXCLUDED.at - a.at)::double precision)),
               at = EXCLUDED.at
        RETURNING a.tokens INTO tokens;
        wanted := LEAST(wanted, pg_catalog.floor(tokens)::integer);
    END IF;
    RETURN GREATEST(0, wanted);
END
$function$;

CREATE FUNCTION durable_notify._in_flight(
    group_id integer, OUT messages integer, OUT until timestamptz
)
LANGUAGE plpgsql STABLE STRICT
SET enable_seqscan = off SET jit = off AS $function$
#variable_conflict use_column
BEGIN
    -- How many messages a group's consumers hold under leases that have not expired, in all topics, and
    -- until when, unless a settle rings. One from before the group had a limit does not ring its topics.
    SELECT COALESCE(pg_catalog.sum(pg_catalog.cardinality(l.ids) - (
               SELECT pg_catalog.count(*) FROM durable_notify.settlement t WHERE t.token = l.token)), 0),
           pg_catalog.min(durable_notify._lease_ends(COALESCE(h.deadline, l.deadline), l.wake_hint = '*'))
      INTO messages, until
      FROM durable_notify.subscription s
     CROSS JOIN LATERAL (
           SELECT p.lease_tokens FROM durable_notify.position p
            WHERE p.subscription_id = s.id ORDER BY p.seq DESC LIMIT 1) AS newest
     CROSS JOIN LATERAL pg_catalog.unnest(newest.lease_tokens) AS held (token)
      JOIN durable_notify.lease l ON l.token = held.token
      LEFT JOIN durable_notify.lease_deadline h ON h.token = l.token
     WHERE s.group_id = _in_flight.group_id
       AND COALESCE(h.deadline, l.deadline) > pg_catalog.clock_timestamp();
END
$function$;

CREATE FUNCTION durable_notify._lease_ends(deadline timestamptz, rings boolean) RETURNS timestamptz
LANGUAGE sql VOLATILE AS $function$
    -- Until when to wait for a lease that holds others back: to its deadline, if a settle before that
    -- rings; if not, look twice a second.
    SELECT CASE WHEN rings THEN deadline ELSE LEAST(deadline, pg_catalog.clock_timestamp() + interval '0.5 seconds') END
$function$;

CREATE FUNCTION durable_notify._read_quota(
    subscription_id integer, options durable_notify.consumer_group, wanted integer
) RETURNS integer
LANGUAGE plpgsql STABLE AS $function$
#variable_conflict use_column
DECLARE
    parked bigint;
BEGIN
    -- How many messages may be read from the outbox. A strict group does not pass what waits. The
    -- number of parked messages is bounded: beyond it the group waits for a key and reads no further.
    IF options.order_by = 'none' OR wanted <= 0 THEN
        RETURN wanted;
    END IF;
    parked := (SELECT pg_catalog.count(*) FROM (
        SELECT FROM durable_notify.deferred d
         WHERE d.subscription_id = _read_quota.subscription_id AND d.key IS NOT NULL
         LIMIT options.park_limit) AS waiting);
    IF options.order_by = 'strict' AND parked > 0 THEN
        RETURN 0;
    END IF;
    RETURN LEAST(wanted, options.park_limit - parked);
END
$function$;
