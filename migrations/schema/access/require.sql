CREATE FUNCTION durable_notify._has_grant(action text, pattern text, group_name text) RETURNS boolean
LANGUAGE plpgsql STABLE AS $function$
#variable_conflict use_column
DECLARE
    calling_role name := durable_notify._calling_role();
BEGIN
    -- Return whether the caller was granted an action on a topic, or on all that a pattern matches, and
    -- on a group; NULL stands for any. Only functions that run with the owner's rights call this.
    --
    -- Trap: the session of the owner or a superuser must not count. It does not come here (see
    -- _is_owner()) unless it runs something as another role: autovacuum evaluates the indexed
    -- expressions of a table as the table's owner, in a session that is a superuser's.
    RETURN NOT pg_catalog.has_table_privilege(calling_role, 'durable_notify.outbox'::regclass, 'TRUNCATE')
       AND EXISTS (
           SELECT FROM durable_notify.access a
            WHERE a.action = _has_grant.action
              -- A granted group that ends with * stands for all whose names begin so.
              AND (_has_grant.group_name IS NULL OR a.group_name = _has_grant.group_name
                   OR pg_catalog.right(a.group_name, 1) = '*'
                      AND pg_catalog.starts_with(_has_grant.group_name, pg_catalog.left(a.group_name, -1)))
              -- In a pattern, * counts as an ordinary word. > does not, unless the granted pattern ends
              -- with it.
              AND (_has_grant.pattern IS NULL
                   OR _has_grant.pattern ~ a.regex
                      AND (pg_catalog.strpos(_has_grant.pattern, '>') = 0 OR pg_catalog.right(a.pattern, 1) = '>'))
              AND pg_catalog.pg_has_role(calling_role, a.role::oid, 'USAGE'));
END
$function$;

CREATE FUNCTION durable_notify._require(
    action text, topics text[] DEFAULT NULL, group_name text DEFAULT NULL, any_group boolean DEFAULT false
) RETURNS void
LANGUAGE plpgsql STABLE AS $function$
DECLARE
    calling_role name;
    missing text;
    command text;
BEGIN
    -- Refuse, unless the caller was granted an action on all of some topics or patterns (NULL: on any),
    -- and, to consume, in a group. What does not exist is refused like what is not granted.
    IF pg_catalog.cardinality(topics) = 1 AND topics[1] IS NOT NULL AND (group_name IS NOT NULL OR action <> 'consume')
       AND durable_notify._has_grant(action, topics[1], group_name) THEN
        RETURN;  -- the usual case
    END IF;
    IF pg_catalog.cardinality(topics) > 10000 THEN
        RAISE EXCEPTION 'at most 10000 topics at once' USING ERRCODE = '22023';
    END IF;
    IF durable_notify._has_grant(action, NULL, group_name)
       AND (group_name IS NOT NULL OR any_group OR action <> 'consume') THEN
        missing := (SELECT pg_catalog.min(COALESCE(t.topic, '')) FROM pg_catalog.unnest(topics) AS t (topic)
                     WHERE t.topic IS NULL OR NOT durable_notify._has_grant(action, t.topic, group_name));
        IF missing IS NULL THEN
            RETURN;
        END IF;
    END IF;
    calling_role := durable_notify._calling_role();
    missing := pg_catalog.left(COALESCE(NULLIF(missing, ''), topics[1], 'TOPIC'), 255);
    command := pg_catalog.format(CASE action
        WHEN 'observe' THEN 'durable-notify grant %I --observe'
        WHEN 'maintain' THEN 'durable-notify grant %I --maintain'
        WHEN 'consume' THEN 'durable-notify grant %I --consume %L --group %L'
        ELSE 'durable-notify grant %I --' || action || ' %L'
    END, calling_role, missing, pg_catalog.left(COALESCE(group_name, 'GROUP'), 255));
    RAISE EXCEPTION 'permission denied: role "%" may not % here', calling_role, action
        USING ERRCODE = 'insufficient_privilege', HINT = 'The owner of the schema can allow it: ' || command;
END
$function$;

CREATE FUNCTION durable_notify._can_observe(group_name text, topic text) RETURNS boolean
LANGUAGE sql STABLE AS $function$
    -- Return whether the caller may see the status of a group in a topic (NULL: in any): it consumes
    -- the topic in the group, or observes everything.
    SELECT durable_notify._has_grant('observe', NULL, NULL)
        OR _can_observe.group_name IS NOT NULL AND durable_notify._has_grant('consume', _can_observe.topic, _can_observe.group_name)
$function$;

CREATE FUNCTION durable_notify._sees_content(group_name text, topic text) RETURNS boolean
LANGUAGE sql STABLE AS $function$
    -- Return whether the caller may see payloads, headers and error texts of what a group has of a
    -- topic: it is the owner, reads the topic, or consumes it in the group. Who only observes does not.
    SELECT pg_catalog.has_table_privilege(durable_notify._calling_role(), 'durable_notify.outbox'::regclass, 'TRUNCATE')
        OR durable_notify._has_grant('read', _sees_content.topic, NULL)
        OR durable_notify._has_grant('consume', _sees_content.topic, _sees_content.group_name)
$function$;

CREATE FUNCTION durable_notify._seen_error(error jsonb, sees boolean) RETURNS jsonb
LANGUAGE sql IMMUTABLE AS $function$
    -- Return an error, or only its type: its text and its traceback may quote a payload.
    SELECT CASE WHEN sees OR error IS NULL THEN error ELSE pg_catalog.jsonb_build_object('type', error -> 'type') END
$function$;

CREATE FUNCTION durable_notify._require_observe(group_name text DEFAULT NULL) RETURNS void
LANGUAGE plpgsql STABLE AS $function$
BEGIN
    -- Refuse, unless the caller observes everything, or consumes in a group (NULL: in any).
    IF NOT durable_notify._has_grant('observe', NULL, NULL)
       AND NOT durable_notify._has_grant('consume', NULL, group_name) THEN
        PERFORM durable_notify._require('observe');
    END IF;
END
$function$;

CREATE FUNCTION durable_notify._visible_leases(tokens bigint[]) RETURNS bigint[]
LANGUAGE plpgsql VOLATILE
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off AS $function$
BEGIN
    -- Remove from some tokens those of leases that the caller may not consume, as if they no longer
    -- existed. By index: in a SERIALIZABLE transaction a scan of all leases would conflict with each
    -- other settle.
    RETURN ARRAY(
        SELECT t.token FROM pg_catalog.unnest(tokens) AS t (token)
          LEFT JOIN durable_notify.lease l ON l.token = t.token
          LEFT JOIN durable_notify.subscription s ON s.id = l.subscription_id
          LEFT JOIN durable_notify.consumer_group g ON g.id = s.group_id
         WHERE l.token IS NULL OR durable_notify._has_grant('consume', s.topic, g.name));
END
$function$;

CREATE FUNCTION durable_notify._topics_or_all(group_name text, topic text) RETURNS text[]
LANGUAGE sql STABLE AS $function$
    -- A topic, or if none is given, all that a group is subscribed to.
    SELECT CASE WHEN _topics_or_all.topic IS NOT NULL THEN ARRAY[_topics_or_all.topic] ELSE ARRAY(
        SELECT s.topic FROM durable_notify.subscription s JOIN durable_notify.consumer_group g ON g.id = s.group_id
         WHERE g.name = _topics_or_all.group_name) END
$function$;
