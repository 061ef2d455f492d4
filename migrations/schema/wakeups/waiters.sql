CREATE FUNCTION durable_notify._no_waiter(topic text) RETURNS boolean
LANGUAGE sql VOLATILE AS $function$
    -- Look once at a topic's doorbell ('': at that of every topic): true if no consumer waits. False if
    -- one does, or another publisher is looking at this very moment; see _has_waiter().
    --
    -- A consumer that waits holds the key in shared mode; a publisher tries it exclusively and releases
    -- it at once, as a network card raises interrupts only while its driver sleeps (NAPI; virtio's
    -- event_idx).
    -- Trap: in one expression. As two statements a cancel in between kept the key.
    -- 1685024362 is _doorbell_class(), written out in the function that each publisher runs.
    SELECT CASE WHEN pg_catalog.pg_try_advisory_lock(1685024362, pg_catalog.hashtext(topic))
                THEN pg_catalog.pg_advisory_unlock(1685024362, pg_catalog.hashtext(topic)) ELSE false END
$function$;

CREATE FUNCTION durable_notify._no_pattern_waiter() RETURNS boolean
LANGUAGE sql VOLATILE AS $function$
    -- Look once whether a consumer waits by some pattern, or for every topic: those hold this key, too,
    -- in shared mode (_try_doorbell()). So that publishers look at one key for all patterns, as long as
    -- none is waited for.
    SELECT CASE WHEN pg_catalog.pg_try_advisory_lock(1685024365, 0)
                THEN pg_catalog.pg_advisory_unlock(1685024365, 0) ELSE false END
$function$;

CREATE FUNCTION durable_notify._doorbell_class() RETURNS integer
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $function$
    -- The first key of the advisory locks that are this library's doorbells: 'dntj'. The second is a
    -- topic's hash. docs/how-it-works.md lists all classes.
    SELECT 1685024362
$function$;

CREATE FUNCTION durable_notify._has_waiter(topic text) RETURNS boolean
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, durable_notify, pg_temp AS $function$
BEGIN
    -- Return whether a consumer waits for a topic ('': for every topic). By now the caller holds
    -- RowExclusiveLock on the outbox or on lock_rings: a consumer that arms after this finds it there.
    --
    -- Publishers get in each other's way for a moment; that must not make them ring for each other.
    IF durable_notify._no_waiter(topic) OR durable_notify._no_waiter(topic) THEN
        RETURN false;
    END IF;
    IF (CASE WHEN pg_catalog.pg_try_advisory_lock_shared(1685024362, pg_catalog.hashtext(topic))
             THEN pg_catalog.pg_advisory_unlock_shared(1685024362, pg_catalog.hashtext(topic)) ELSE false END) THEN
        RETURN true;
    END IF;
    -- Not even in shared mode: another publisher holds it now, and then no consumer waits, since the
    -- modes exclude each other. Trap: or a stranger queues for it behind consumers that wait: a try
    -- fails then, too. pg_locks says whether one waits, but takes too long to look at each time.
    RETURN EXISTS (
        SELECT FROM pg_catalog.pg_locks l
         WHERE l.locktype = 'advisory' AND l.classid = 1685024362
           AND l.objid = (pg_catalog.hashtext(topic)::bigint & 4294967295)::oid AND l.objsubid = 2
           AND l.database = (SELECT d.oid FROM pg_catalog.pg_database d WHERE d.datname = pg_catalog.current_database())
           AND l.mode = 'ShareLock' AND l.granted);
END
$function$;

CREATE FUNCTION durable_notify._notify_waiters(topic text, hint text) RETURNS void
LANGUAGE plpgsql VOLATILE AS $function$
DECLARE
    policy text := durable_notify.notify_policy(topic);
BEGIN
    -- Notify who waits for a topic, as its policy says, when this transaction commits; see _ring().
    IF policy OPERATOR(pg_catalog.=) 'never' THEN
        RETURN;
    END IF;
    IF policy OPERATOR(pg_catalog.=) 'always' OR durable_notify._has_waiter(topic) THEN
        PERFORM pg_catalog.pg_notify(durable_notify.channel(topic), hint);
    END IF;
    IF policy OPERATOR(pg_catalog.=) 'always' OR durable_notify._has_waiter('')
       OR durable_notify._has_waiter(durable_notify._family(topic)) THEN
        PERFORM pg_catalog.pg_notify('durable_notify', topic);  -- for consumers by pattern
    END IF;
END
$function$;

CREATE FUNCTION durable_notify._family(topic text) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $function$
    -- The pattern whose doorbell is that of all patterns that begin with the same word as a topic:
    -- orders.> for orders.new. So a consumer that sleeps by a pattern is not rung for other topics, and
    -- does not make their publishers notify. '' is the doorbell of patterns whose first word is * or >,
    -- which alone match a topic of one word.
    SELECT CASE WHEN topic OPERATOR(pg_catalog.~~) '%.%'
                THEN pg_catalog.split_part(topic, '.', 1) OPERATOR(pg_catalog.||) '.>' ELSE '' END
$function$;

CALL durable_notify._grantable('_no_waiter', '{insert}');
CALL durable_notify._grantable('_no_pattern_waiter', '{insert}');
CALL durable_notify._grantable('_family', '{insert}');
CALL durable_notify._grantable('_doorbell_class', '{read,consume}');
CALL durable_notify._grantable('_has_waiter', '{insert}');
CALL durable_notify._grantable('_notify_waiters', '{insert}');
