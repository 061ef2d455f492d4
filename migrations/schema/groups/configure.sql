CREATE FUNCTION durable_notify.configure(group_name text, options jsonb) RETURNS void
LANGUAGE plpgsql
SET lock_timeout = '5s'
SET search_path = pg_catalog, durable_notify, pg_temp AS $function$
#variable_conflict use_column
DECLARE
    old durable_notify.consumer_group;
    new durable_notify.consumer_group;
    changed integer;
    unknown text;
BEGIN
    -- Change options of a group while its consumers run; options not given stay as they are.
    --
    -- order_by, exclusive, max_attempts, retry_base, retry_factor, retry_max (seconds), retry_delays (a list
    -- of seconds; an empty one: by the other three), on_expiry, park_limit, max_in_flight, rate_limit; null
    -- lifts the last two.
    -- A new order_by holds for what is delivered from then on, and for all that waits. It waits, for 5
    -- seconds at most, until no open transaction redelivers messages of the group (SQLSTATE 55P03).
    IF NOT durable_notify._is_owner() THEN
        PERFORM durable_notify._configure_granted(group_name, options);
        RETURN;
    END IF;
    unknown := (SELECT pg_catalog.string_agg(o.name, ', ') FROM pg_catalog.jsonb_object_keys(options) AS o (name)
                 WHERE o.name <> ALL ('{order_by,exclusive,max_attempts,retry_base,retry_factor,retry_max,
                                        retry_delays,on_expiry,park_limit,max_in_flight,rate_limit}'::text[]));
    IF unknown IS NOT NULL THEN
        RAISE EXCEPTION 'a group has no option %', unknown USING ERRCODE = '22023',
              HINT = 'The options are columns of durable_notify.consumer_group.';
    END IF;
    changed := durable_notify._lock_group_and(group_name, 'order', options ->> 'order_by');
    SELECT * INTO STRICT old FROM durable_notify.consumer_group g WHERE g.id = changed;
    UPDATE durable_notify.consumer_group g
       SET order_by = COALESCE(options ->> 'order_by', g.order_by),
           exclusive = COALESCE((options ->> 'exclusive')::boolean, g.exclusive),
           max_attempts = COALESCE((options ->> 'max_attempts')::integer, g.max_attempts),
           retry_base = COALESCE(
               pg_catalog.make_interval(secs => (options ->> 'retry_base')::double precision), g.retry_base),
           retry_factor = COALESCE((options ->> 'retry_factor')::double precision, g.retry_factor),
           retry_max = COALESCE(
               pg_catalog.make_interval(secs => (options ->> 'retry_max')::double precision), g.retry_max),
           retry_delays = CASE WHEN options ? 'retry_delays'
               THEN ARRAY(SELECT d.value::double precision
                            FROM pg_catalog.jsonb_array_elements_text(options -> 'retry_delays')
                                 WITH ORDINALITY AS d (value, n) ORDER BY d.n)
               ELSE g.retry_delays END,
           on_expiry = COALESCE(options ->> 'on_expiry', g.on_expiry),
           park_limit = COALESCE((options ->> 'park_limit')::integer, g.park_limit),
           max_in_flight = CASE WHEN options ? 'max_in_flight'
               THEN (options ->> 'max_in_flight')::integer ELSE g.max_in_flight END,
           rate_limit = CASE WHEN options ? 'rate_limit'
               THEN (options ->> 'rate_limit')::double precision ELSE g.rate_limit END
     WHERE g.id = changed
    RETURNING * INTO STRICT new;
    IF new IS NOT DISTINCT FROM old THEN
        RETURN;
    END IF;
    IF new.order_by <> old.order_by THEN
        IF pg_catalog.current_setting('transaction_isolation') <> 'read committed' THEN
            -- A frozen snapshot would leave out what has begun to wait since.
            RAISE EXCEPTION 'order_by of group "%" must be changed in a READ COMMITTED transaction', group_name
                USING ERRCODE = '22023', HINT = 'Nothing was changed.';
        END IF;
        UPDATE durable_notify.ordering o SET changes = o.changes + 1 WHERE o.group_id = changed;
        PERFORM durable_notify._apply_new_order(new);
    END IF;
    PERFORM durable_notify._record_audit('configure', group_name, options);
    PERFORM durable_notify._ring_group(changed);
EXCEPTION
    WHEN check_violation OR invalid_text_representation OR numeric_value_out_of_range
         OR datetime_field_overflow OR interval_field_overflow OR not_null_violation THEN
        RAISE EXCEPTION 'invalid options of group "%": %', group_name, SQLERRM
            USING ERRCODE = '22023', HINT = 'Nothing was changed.';
END
$function$;

CREATE FUNCTION durable_notify._apply_new_order(changed durable_notify.consumer_group) RETURNS void
LANGUAGE plpgsql AS $function$
#variable_conflict use_column
BEGIN
    -- Apply a group's new order to what waits in deferred. The caller holds the group's lock and its
    -- row of ordering: there is no row that this cannot see. Leases keep the order under which they
    -- were delivered.
    UPDATE durable_notify.deferred d
       SET key = durable_notify._ordering_key(changed.order_by, o.key),
           reason = CASE WHEN d.reason = 'key' THEN 'retry' ELSE d.reason END
      FROM (SELECT w.subscription_id, w.message_id, w.seq, o.key
              FROM durable_notify.subscription s
              JOIN durable_notify.deferred w ON w.subscription_id = s.id AND w.reason IN ('retry', 'key')
             CROSS JOIN LATERAL durable_notify._message(s.topic, w.message_id, w.message_id, w.message_id) AS o
             WHERE s.group_id = changed.id) AS o
     WHERE d.subscription_id = o.subscription_id AND d.message_id = o.message_id AND d.seq = o.seq;
END
$function$;

CALL durable_notify._grantable('configure', '{consume}', $$_require('consume', NULL, group_name)$$);
