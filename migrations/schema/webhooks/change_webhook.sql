CREATE FUNCTION durable_notify.change_webhook(group_name text, changes jsonb) RETURNS void
LANGUAGE plpgsql
SET lock_timeout = '5s' SET search_path = pg_catalog, durable_notify, pg_temp AS $function$
#variable_conflict use_column
DECLARE
    old durable_notify.webhook;
    new durable_notify.webhook;
    ended text[];
BEGIN
    -- Change an endpoint while relays run: url, topics, secrets, or options as create_webhook() has them. null
    -- sets an option back. It gets of a new topic what commits from here on. A topic that it no longer has
    -- is unsubscribed: what waits there is dropped.
    IF NOT durable_notify._is_owner() THEN
        PERFORM durable_notify._change_webhook_granted(group_name, changes);
        RETURN;
    END IF;
    IF changes IS NULL OR pg_catalog.jsonb_typeof(changes) <> 'object'
       OR (SELECT pg_catalog.bool_or(pg_catalog.jsonb_typeof(c.value) <> 'array') FROM pg_catalog.jsonb_each(changes) AS c (name, value)
            WHERE c.name IN ('topics', 'secrets')) THEN
        RAISE EXCEPTION 'changes of an endpoint are an object; topics and secrets are lists'
            USING ERRCODE = '22023', HINT = 'Nothing was changed.';
    END IF;
    old := durable_notify._locked_webhook(group_name);
    new := old;
    new.url := CASE WHEN changes ? 'url' THEN changes ->> 'url' ELSE old.url END;
    new.topics := durable_notify._webhook_list(changes -> 'topics', old.topics);
    new.secrets := durable_notify._webhook_list(changes -> 'secrets', old.secrets);
    new.options := old.options || (changes - '{url,topics,secrets}'::text[]);
    PERFORM durable_notify._check_webhook(new.topics, new.url, new.options, new.secrets);
    new.options := pg_catalog.jsonb_strip_nulls(new.options);
    IF new IS NOT DISTINCT FROM old THEN
        RETURN;
    END IF;
    PERFORM durable_notify.subscribe(group_name, new.topics, 'now');
    DELETE FROM durable_notify.group_pattern p WHERE p.group_id = old.group_id AND p.pattern <> ALL (new.topics);
    ended := ARRAY(SELECT s.topic FROM durable_notify.subscription s
                    WHERE s.group_id = old.group_id AND NOT EXISTS (
                          SELECT FROM pg_catalog.unnest(new.topics) AS t (topic)
                           WHERE s.topic ~ durable_notify._topic_regex(t.topic)));
    IF ended <> '{}' THEN
        PERFORM durable_notify.unsubscribe(group_name, ended, 'change webhook');
    END IF;
    UPDATE durable_notify.webhook w
       SET url = new.url, topics = new.topics, options = new.options, secrets = new.secrets, changed_at = pg_catalog.clock_timestamp()
     WHERE w.group_id = old.group_id;
    PERFORM durable_notify._record_webhook('change webhook', group_name, pg_catalog.jsonb_build_object(
        'changed', (SELECT pg_catalog.jsonb_agg(c.name ORDER BY c.name) FROM pg_catalog.jsonb_object_keys(changes) AS c (name))));
END
$function$;

CREATE FUNCTION durable_notify._webhook_list(given jsonb, before text[]) RETURNS text[]
LANGUAGE sql STABLE AS $function$
    -- A list of texts in JSON; what was before if it is not given.
    SELECT CASE WHEN given IS NULL THEN before
                ELSE ARRAY(SELECT t.item FROM pg_catalog.jsonb_array_elements_text(given) WITH ORDINALITY AS t (item, place)
                            ORDER BY t.place) END
$function$;

CALL durable_notify._grantable('change_webhook', '{consume}',
    $$_require('consume', durable_notify._webhook_topics(group_name)
        || durable_notify._webhook_list(CASE WHEN pg_catalog.jsonb_typeof(changes -> 'topics') = 'array' THEN changes -> 'topics' END, '{}'), group_name)$$);
