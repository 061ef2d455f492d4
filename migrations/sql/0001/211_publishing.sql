CREATE FUNCTION durable_notify.publishing() RETURNS xid[]
LANGUAGE sql VOLATILE AS $function$
    -- The transactions of others in which something is being published now: who inserts holds
    -- RowExclusiveLock on the outbox from before it draws an id until after its commit became visible.
    SELECT durable_notify.writers('{durable_notify.outbox}')
$function$;
