CREATE FUNCTION durable_notify.note_webhook(group_name text, failure text DEFAULT NULL, gone boolean DEFAULT false) RETURNS boolean
LANGUAGE plpgsql
SET lock_timeout = '5s' SET search_path = pg_catalog, durable_notify, pg_temp AS $function$
#variable_conflict use_column
DECLARE
    noted durable_notify.webhook;
    limit_seconds double precision;
BEGIN
    -- Record how an endpoint fails, or that it works (NULL); returns whether its group is paused because of
    -- that. A relay calls this when it changes, and once pause_after is over.
    --
    -- The group is paused if the endpoint wants no more messages (gone), or has failed for longer than its
    -- option pause_after: 5 days, unless set. The audit has the reason; resume() ends it.
    IF NOT durable_notify._is_owner() THEN
        RETURN durable_notify._note_webhook_granted(group_name, failure, gone);
    END IF;
    SELECT w.* INTO noted FROM durable_notify.webhook w JOIN durable_notify.consumer_group g ON g.id = w.group_id
     WHERE g.name = group_name;
    IF noted.group_id IS NULL OR failure IS NULL AND noted.failing_since IS NULL THEN
        RETURN false;
    END IF;
    limit_seconds := COALESCE((noted.options ->> 'pause_after')::double precision, 432000);
    IF failure IS NOT NULL
       AND (gone OR limit_seconds > 0
                    AND noted.failing_since <= pg_catalog.clock_timestamp() - pg_catalog.make_interval(secs => limit_seconds)) THEN
        -- The group's lock before the row, as everything else takes them.
        PERFORM durable_notify._set_paused(group_name, true,
            CASE WHEN noted.failing_since IS NULL THEN '' ELSE pg_catalog.format('failing since %s: ', noted.failing_since) END
            || pg_catalog.left(failure, 500));
    END IF;
    UPDATE durable_notify.webhook w
       SET failing_since = CASE WHEN note_webhook.failure IS NOT NULL THEN COALESCE(w.failing_since, pg_catalog.clock_timestamp()) END,
           failure = pg_catalog.left(note_webhook.failure, 500)
     WHERE w.group_id = noted.group_id;
    RETURN EXISTS (SELECT FROM durable_notify.consumer_group g WHERE g.id = noted.group_id AND g.paused_at IS NOT NULL);
END
$function$;

CALL durable_notify._grantable('note_webhook', '{consume}', $$_require('consume', durable_notify._webhook_topics(group_name), group_name)$$);
