CREATE FUNCTION durable_notify.keep_all() RETURNS void
LANGUAGE sql VOLATILE AS $function$
    -- Have nothing go from the log until this transaction ends: it redelivers messages, or begins a group. And
    -- have what was found of leaves that are to go be found once more after it; see note_unwanted().
    --
    -- The lock of the row's table makes it true until the commit; see hold_removing(). Call it before the group's
    -- lock is taken: it may wait here, and the group's claims are not to wait for that. A row for each: no one
    -- waits here for another who does the same.
    INSERT INTO durable_notify.removing DEFAULT VALUES
$function$;
