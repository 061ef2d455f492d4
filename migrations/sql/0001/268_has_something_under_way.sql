CREATE FUNCTION durable_notify.has_something_under_way(subscription_id integer) RETURNS boolean
LANGUAGE sql STABLE STRICT AS $function$
    -- Whether anything of a topic may come back to a group by the clock: a look at two indexes, so
    -- that a group of hundreds of quiet topics sleeps at little cost.
    SELECT (SELECT p.live <> '{}' OR p.s1 IS NOT NULL FROM durable_notify.position p
             WHERE p.subscription_id = has_something_under_way.subscription_id ORDER BY p.seq DESC LIMIT 1)
        OR EXISTS (SELECT FROM durable_notify.deferred d
                    WHERE d.subscription_id = has_something_under_way.subscription_id)
$function$;
