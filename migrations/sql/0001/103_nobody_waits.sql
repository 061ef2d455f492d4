CREATE FUNCTION durable_notify.nobody_waits(topic text) RETURNS boolean
LANGUAGE sql VOLATILE AS $function$
    -- One look at a topic's doorbell ('': at that of every topic): true where nobody waits. False
    -- where somebody does, or another publisher is looking at this very moment; see somebody_waits().
    --
    -- Who waits holds the key in shared mode; a publisher tries it exclusively and lets it go at once,
    -- as a network card raises interrupts only while its driver sleeps (NAPI; virtio's event_idx).
    -- Trap: in one expression. As two statements a cancel in between kept the key.
    -- 1685024362 is 'dntj': this library's doorbells.
    SELECT CASE WHEN pg_catalog.pg_try_advisory_lock(1685024362, pg_catalog.hashtext(topic))
                THEN pg_catalog.pg_advisory_unlock(1685024362, pg_catalog.hashtext(topic)) ELSE false END
$function$;
