CREATE FUNCTION durable_notify.release(tokens bigint[], counted boolean DEFAULT false) RETURNS SETOF bigint
LANGUAGE plpgsql
SET lock_timeout = '5s' SET search_path = pg_catalog, durable_notify, pg_temp AS $function$
#variable_conflict use_column
DECLARE
    given text[];
    before bigint;
    held bigint[];
BEGIN
    -- Give leases back: what is not settled is redelivered at once, counted as an attempt or not.
    --
    -- Returns the tokens that could not be given back because a transaction that settles some of their
    -- messages is still open; try again later, or let them expire.
    IF NOT durable_notify._is_owner() THEN
        RETURN QUERY SELECT * FROM durable_notify._release_granted(tokens, counted);
        RETURN;
    END IF;
    before := (SELECT pg_catalog.count(*) FROM durable_notify.lease l WHERE l.token = ANY (tokens));
    given := ARRAY(SELECT DISTINCT s.topic
                     FROM durable_notify.lease l
                     JOIN durable_notify.subscription own ON own.id = l.subscription_id
                     JOIN durable_notify.subscription s
                       ON s.group_id = own.group_id AND (s.id = own.id OR l.wake_hint = '*')  -- room for the group
                    WHERE l.token = ANY (tokens));
    held := durable_notify._reclaim_leases(tokens, false, counted);
    IF pg_catalog.cardinality(held) < before THEN  -- a consumer asks again and again until it is given back
        PERFORM durable_notify._ring(g.topic, '0') FROM pg_catalog.unnest(given) AS g (topic);
    END IF;
    RETURN QUERY SELECT pg_catalog.unnest(held);
END
$function$;

CALL durable_notify._grantable('release', '{consume}', $$_require('consume', NULL, NULL, true)$$, next => $$
    tokens := durable_notify._visible_leases(tokens);
$$);
