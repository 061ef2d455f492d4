CREATE FUNCTION durable_notify.somebody_waits(topic text) RETURNS boolean
LANGUAGE plpgsql VOLATILE AS $function$
BEGIN
    -- Whether somebody waits for a topic ('': for every topic).
    --
    -- Publishers get in each other's way for a moment. Whoever cannot have the key in shared mode
    -- either has met one that holds it exclusively, and then nobody waits: the modes exclude each
    -- other. That keeps publishers from ringing for one another. The caller holds RowExclusiveLock on
    -- the outbox or on ringing by now: that is where who arms after this finds it.
    FOR _turn IN 1 .. 2 LOOP
        IF durable_notify.nobody_waits(topic) THEN
            RETURN false;
        END IF;
        IF NOT (CASE WHEN pg_catalog.pg_try_advisory_lock_shared(1685024362, pg_catalog.hashtext(topic))
                    THEN pg_catalog.pg_advisory_unlock_shared(1685024362, pg_catalog.hashtext(topic)) ELSE false END) THEN
            RETURN false;
        END IF;
    END LOOP;
    RETURN true;
END
$function$;
