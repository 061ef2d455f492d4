CREATE FUNCTION durable_notify.create_webhook(
    group_name text, topics text[], url text, options jsonb DEFAULT '{}', secrets text[] DEFAULT '{}',
    group_options jsonb DEFAULT '{}', start_at text DEFAULT 'now', since timestamptz DEFAULT NULL
) RETURNS void
LANGUAGE plpgsql
SET lock_timeout = '5s' SET search_path = pg_catalog, durable_notify, pg_temp AS $function$
#variable_conflict use_column
DECLARE
    new_group integer;
BEGIN
    -- Create an endpoint of webhooks: a group, and the URL to which relays send its messages. start_at and
    -- since are those of subscribe(). A group that exists keeps its position and options.
    --
    -- options: filter (what a message must have: an object with key, headers, payload), headers (further
    -- ones, by name), header_prefix (repeats the webhook- headers under another prefix), cloudevents,
    -- timeout (seconds), concurrency, pause_after (for so many seconds it may fail; 0: for ever). Nothing
    -- that must stay secret belongs into headers. group_options: those of configure(), for a new group.
    IF NOT durable_notify._is_owner() THEN
        PERFORM durable_notify._create_webhook_granted(group_name, topics, url, options, secrets, group_options, start_at, since);
        RETURN;
    END IF;
    PERFORM durable_notify._check_webhook(topics, url, options, secrets);
    new_group := (SELECT g.id FROM durable_notify.consumer_group g WHERE g.name = group_name);
    PERFORM durable_notify.subscribe(group_name, topics, start_at, since);
    IF new_group IS NULL AND group_options <> '{}' THEN
        PERFORM durable_notify.configure(group_name, group_options);
    END IF;
    new_group := (durable_notify._lock_group(group_name)).id;
    INSERT INTO durable_notify.webhook (group_id, url, topics, options, secrets)
    VALUES (new_group, url, topics, pg_catalog.jsonb_strip_nulls(options), secrets);
    PERFORM durable_notify._record_webhook('create webhook', group_name, pg_catalog.jsonb_build_object('topics', topics));
EXCEPTION WHEN unique_violation THEN
    RAISE EXCEPTION 'group "%" is an endpoint of webhooks already', group_name
        USING ERRCODE = '22023', HINT = 'change_webhook() changes it. Nothing was changed.';
END
$function$;

CREATE FUNCTION durable_notify._check_webhook(topics text[], url text, options jsonb, secrets text[]) RETURNS void
LANGUAGE plpgsql STABLE AS $function$
DECLARE
    flaw text;
BEGIN
    -- Refuse an endpoint that could not work, without quoting what may be secret.
    flaw := CASE
        WHEN COALESCE(pg_catalog.cardinality(topics), 0) = 0 OR pg_catalog.cardinality(topics) > 100 THEN 'it has 1 to 100 topics'
        WHEN url IS NULL OR pg_catalog.octet_length(url) > 2000 OR durable_notify._has_controls(url, true)
             OR url !~* '^https?://[^/?#@]+([/?#]|$)' THEN 'its URL is https://HOST/PATH, without a password'
        WHEN options IS NULL OR pg_catalog.jsonb_typeof(options) <> 'object' OR pg_catalog.octet_length(options::text) > 20000
            THEN 'its options are an object, of 20 kB at most'
        WHEN secrets IS NULL OR EXISTS (SELECT FROM pg_catalog.unnest(secrets) AS s (place) WHERE (s.place ~ '^(env|file):.') IS NOT TRUE)
            THEN 'its secrets say where they are: env:NAME or file:PATH'
    END;
    IF flaw IS NULL THEN
        flaw := (
            SELECT CASE o.name
                       WHEN 'filter' THEN 'filter is an object with key, headers or payload'
                       WHEN 'headers' THEN 'headers is an object of texts'
                       WHEN 'header_prefix' THEN 'header_prefix is like "svix-"'
                       WHEN 'cloudevents' THEN 'cloudevents is true or false'
                       WHEN 'timeout' THEN 'timeout is 1 to 300 seconds'
                       WHEN 'concurrency' THEN 'concurrency is 1 to 100'
                       WHEN 'pause_after' THEN 'pause_after is a number of seconds'
                       ELSE 'it has no option ' || pg_catalog.left(o.name, 100) END
              FROM pg_catalog.jsonb_each(options) AS o (name, value)
             WHERE NOT durable_notify._is_webhook_option(o.name, o.value)
             ORDER BY 1 LIMIT 1);
    END IF;
    IF flaw IS NOT NULL THEN
        RAISE EXCEPTION 'invalid endpoint of webhooks: %', flaw USING ERRCODE = '22023', HINT = 'Nothing was changed.';
    END IF;
END
$function$;

CREATE FUNCTION durable_notify._is_webhook_option(name text, value jsonb) RETURNS boolean
LANGUAGE plpgsql STABLE AS $function$
DECLARE
    kind text := pg_catalog.jsonb_typeof(value);
    given double precision := CASE WHEN kind = 'number' THEN LEAST(GREATEST((value #>> '{}')::numeric, -1), 1e9) END;
BEGIN
    -- Return whether an option of an endpoint is valid. null leaves it out.
    RETURN CASE
        WHEN kind = 'null' THEN name IN ('filter', 'headers', 'header_prefix', 'cloudevents', 'timeout', 'concurrency', 'pause_after')
        WHEN name = 'filter' THEN kind = 'object' AND value - '{key,headers,payload}'::text[] = '{}'
        WHEN name = 'headers' THEN kind = 'object' AND NOT EXISTS (
            SELECT FROM pg_catalog.jsonb_each(value) AS h (name, value) WHERE pg_catalog.jsonb_typeof(h.value) <> 'string')
        WHEN name = 'header_prefix' THEN kind = 'string' AND (value #>> '{}') ~ '^[a-z][a-z0-9-]{0,40}-$'
        WHEN name = 'cloudevents' THEN kind = 'boolean'
        WHEN name = 'timeout' THEN given BETWEEN 1 AND 300
        WHEN name = 'concurrency' THEN given BETWEEN 1 AND 100 AND given = pg_catalog.trunc(given)
        WHEN name = 'pause_after' THEN given BETWEEN 0 AND 315360000
        ELSE false END IS TRUE;
END
$function$;

CREATE FUNCTION durable_notify._record_webhook(action text, group_name text, details jsonb) RETURNS void
LANGUAGE sql AS $function$
    -- Record a change of an endpoint, and tell the relays. Trap: its URL may have a token, and its headers
    -- a password: the audit has neither.
    SELECT durable_notify._record_audit(action, group_name, details),
           durable_notify._ring_webhooks()
$function$;

CREATE FUNCTION durable_notify._ring_webhooks() RETURNS void
LANGUAGE sql AS $function$
    -- Tell the relays of webhooks that endpoints have changed. Each also looks once a minute.
    SELECT pg_catalog.pg_notify(durable_notify.channel('durable_notify.webhooks'), '*')
$function$;

CREATE FUNCTION durable_notify._locked_webhook(group_name text) RETURNS durable_notify.webhook
LANGUAGE plpgsql AS $function$
#variable_conflict use_column
DECLARE
    locked integer := (durable_notify._lock_group(group_name)).id;
    found_one durable_notify.webhook;
BEGIN
    -- Take the lock of an endpoint's group, under which the endpoint changes; returns the endpoint.
    SELECT w.* INTO found_one FROM durable_notify.webhook w WHERE w.group_id = locked FOR UPDATE;
    IF found_one.group_id IS NULL THEN
        RAISE EXCEPTION 'group "%" is no endpoint of webhooks', group_name
            USING ERRCODE = 'DN005', HINT = 'durable_notify.webhooks() lists them.';
    END IF;
    RETURN found_one;
END
$function$;

CREATE FUNCTION durable_notify._webhook_topics(group_name text) RETURNS text[]
LANGUAGE sql STABLE AS $function$
    -- The topics and patterns of an endpoint.
    SELECT w.topics FROM durable_notify.webhook w JOIN durable_notify.consumer_group g ON g.id = w.group_id
     WHERE g.name = _webhook_topics.group_name
$function$;

CALL durable_notify._grantable('create_webhook', '{consume}', $$_require('consume', topics, group_name)$$);
