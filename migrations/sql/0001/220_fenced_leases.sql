CREATE FUNCTION durable_notify.fenced_leases(group_id integer, since timestamptz) RETURNS bigint[]
LANGUAGE sql STABLE AS $function$
    -- What was handed out in an exclusive group before its consumer became the active one.
    SELECT ARRAY(
        SELECT l.token FROM durable_notify.subscription s JOIN durable_notify.lease l ON l.subscription_id = s.id
         -- In the future: from before the clock was set back, and there is no telling whose it is.
         WHERE s.group_id = fenced_leases.group_id
           AND (l.claimed_at < since OR l.claimed_at > pg_catalog.clock_timestamp()))
$function$;
