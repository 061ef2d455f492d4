CREATE FUNCTION durable_notify.require(
    action text, topics text[] DEFAULT NULL, group_name text DEFAULT NULL, any_group boolean DEFAULT false
) RETURNS void
LANGUAGE plpgsql STABLE AS $function$
DECLARE
    asking name;
    missing text;
    command text;
BEGIN
    -- Refuse, unless the caller was granted an action on all of some topics or patterns (NULL: on any),
    -- and, to consume, in a group. What is not there is refused as what is not granted.
    IF pg_catalog.cardinality(topics) = 1 AND topics[1] IS NOT NULL AND (group_name IS NOT NULL OR action <> 'consume')
       AND durable_notify.granted(action, topics[1], group_name) THEN
        RETURN;  -- as a rule
    END IF;
    IF pg_catalog.cardinality(topics) > 10000 THEN
        RAISE EXCEPTION 'at most 10000 topics at once' USING ERRCODE = '22023';
    END IF;
    IF durable_notify.granted(action, NULL, group_name)
       AND (group_name IS NOT NULL OR any_group OR action <> 'consume') THEN
        missing := (SELECT pg_catalog.min(COALESCE(t.topic, '')) FROM pg_catalog.unnest(topics) AS t (topic)
                     WHERE t.topic IS NULL OR NOT durable_notify.granted(action, t.topic, group_name));
        IF missing IS NULL THEN
            RETURN;
        END IF;
    END IF;
    asking := durable_notify.caller();
    missing := pg_catalog.left(COALESCE(NULLIF(missing, ''), topics[1], 'TOPIC'), 255);
    command := pg_catalog.format(CASE action
        WHEN 'observe' THEN 'durable-notify grant %I --observe'
        WHEN 'consume' THEN 'durable-notify grant %I --consume %L --group %L'
        ELSE 'durable-notify grant %I --' || action || ' %L'
    END, asking, missing, pg_catalog.left(COALESCE(group_name, 'GROUP'), 255));
    RAISE EXCEPTION 'permission denied: role "%" may not % here', asking, action
        USING ERRCODE = 'insufficient_privilege', HINT = 'The owner of the schema can allow it: ' || command;
END
$function$;
