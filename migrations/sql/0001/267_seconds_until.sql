CREATE FUNCTION durable_notify.seconds_until(due timestamptz) RETURNS double precision
LANGUAGE sql VOLATILE AS $function$
    -- How long to wait for a due time; NULL: it never comes. Of one that has passed half as long as that is
    -- ago, 10 milliseconds to 1 second: a wait that grows, for what is due and not to be had.
    -- Trap: a message may be for 'infinity', from which nothing can be taken.
    SELECT CASE WHEN w.seconds > 0 THEN w.seconds ELSE LEAST(1, GREATEST(0.01, w.seconds / -2)) END
      FROM (SELECT EXTRACT(epoch FROM GREATEST('epoch', LEAST(due, pg_catalog.clock_timestamp() + interval '1 year'))
                                      - pg_catalog.clock_timestamp())::double precision) AS w (seconds)
     WHERE due IS NOT NULL
$function$;
