CREATE FUNCTION durable_notify._try_activate(options durable_notify.consumer_group, consumer text, lease interval)
RETURNS boolean
LANGUAGE plpgsql AS $function$
#variable_conflict use_column
DECLARE
    now_time timestamptz := pg_catalog.clock_timestamp();
    standing durable_notify.active_consumer;
    lease_tokens bigint[];
BEGIN
    -- Return whether a consumer is the active one of an exclusive group after this call: it is already,
    -- no consumer is, or the active one has given no sign of life for the length of its lease. The
    -- caller holds the group's lock.
    --
    -- Fencing: the leases that the previous active consumer still holds are superseded first. If an open
    -- transaction settles one of them, this returns false, and claims deliver nothing, until it has ended.
    IF consumer IS NULL THEN
        RAISE EXCEPTION 'group "%" is exclusive: each of its consumers needs a name', options.name
            USING ERRCODE = '22023', HINT = 'Give claim() an owner or a consumer that no other consumer has.';
    END IF;
    SELECT * INTO standing FROM durable_notify.active_consumer a WHERE a.group_id = options.id FOR UPDATE;
    IF standing.group_id IS NULL OR standing.consumer <> consumer THEN
        IF standing.deadline > now_time THEN
            RETURN false;
        END IF;
        INSERT INTO durable_notify.active_consumer AS a (group_id, consumer, since, deadline)
        VALUES (options.id, _try_activate.consumer, now_time, now_time + lease)
        ON CONFLICT (group_id) DO UPDATE
           SET consumer = EXCLUDED.consumer, since = EXCLUDED.since, deadline = EXCLUDED.deadline;
        standing.since := now_time;
    ELSIF standing.deadline < now_time + lease / 2 THEN
        UPDATE durable_notify.active_consumer a SET deadline = now_time + lease WHERE a.group_id = options.id;
    END IF;
    lease_tokens := durable_notify._fenced_leases(options.id, standing.since);
    RETURN pg_catalog.cardinality(lease_tokens) = 0
        OR pg_catalog.cardinality(durable_notify._reclaim_leases(lease_tokens, false, true)) = 0;
END
$function$;

CREATE FUNCTION durable_notify._fenced_leases(group_id integer, since timestamptz) RETURNS bigint[]
LANGUAGE sql STABLE AS $function$
    -- What was delivered in an exclusive group before its consumer became the active one.
    SELECT ARRAY(
        SELECT l.token FROM durable_notify.subscription s JOIN durable_notify.lease l ON l.subscription_id = s.id
         -- In the future: from before the clock was set back, so its holder is not known.
         WHERE s.group_id = _fenced_leases.group_id
           AND (l.claimed_at < since OR l.claimed_at > pg_catalog.clock_timestamp()))
$function$;
