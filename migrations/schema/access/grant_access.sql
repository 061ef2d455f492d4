CREATE FUNCTION durable_notify.grant_access(
    role text, action text, topics text[] DEFAULT NULL, group_name text DEFAULT NULL
) RETURNS void
LANGUAGE plpgsql VOLATILE
SET lock_timeout = '5s' SET search_path = pg_catalog, durable_notify, pg_temp AS $function$
#variable_conflict use_variable
DECLARE
    grantee regrole;
    bad text;
BEGIN
    -- Allow a role, and its members, an action. For the owner of the schema.
    --
    -- action: 'publish', 'consume' in a group, or in all whose names begin with what stands before a * at
    -- the end, or 'read' the topics that match some patterns, as
    -- _topic_regex() has them; 'observe': see status, audit and dead letters of everything; 'insert':
    -- write INSERT statements for the outbox, whatever the topic; 'maintain': run maintenance, except for
    -- the archive.
    grantee := durable_notify._resolve_role(role);
    IF action IS NULL OR action NOT IN ('publish', 'consume', 'read', 'observe', 'insert', 'maintain') THEN
        RAISE EXCEPTION 'invalid action "%": grant publish, consume, read, observe, insert or maintain', action
            USING ERRCODE = '22023', HINT = 'Nothing was changed.';
    END IF;
    IF (action = 'consume') <> (group_name IS NOT NULL) THEN
        RAISE EXCEPTION 'consume needs a group, and no other action has one'
            USING ERRCODE = '22023', HINT = 'Nothing was changed.';
    END IF;
    IF (action IN ('publish', 'consume', 'read')) <> (COALESCE(pg_catalog.cardinality(topics), 0) > 0) THEN
        RAISE EXCEPTION 'publish, consume and read need topics, and observe, insert and maintain have none'
            USING ERRCODE = '22023', HINT = '> stands for all topics. Nothing was changed.';
    END IF;
    IF durable_notify._has_controls(group_name, false) OR pg_catalog.octet_length(group_name) NOT BETWEEN 1 AND 255 THEN
        RAISE EXCEPTION 'a group''s name must have 1 to 255 bytes and no control characters'
            USING ERRCODE = '22023', HINT = 'Nothing was changed.';
    END IF;
    SELECT COALESCE(t.topic, 'NULL') INTO bad FROM pg_catalog.unnest(topics) AS t (topic)
     WHERE t.topic IS NULL OR pg_catalog.octet_length(t.topic) NOT BETWEEN 1 AND 255
        OR durable_notify._has_controls(t.topic, true)
        OR t.topic ~ '[*>]' AND t.topic !~ '^([^.*>]+|[*])([.]([^.*>]+|[*]))*([.]>)?$' AND t.topic <> '>'
     LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION 'invalid topic or pattern: %', pg_catalog.left(bad, 100)
            USING ERRCODE = '22023', HINT = '* stands for one whole word between dots; > must be the last word and stands for '
                'one or more. Nothing was changed.';
    END IF;
    INSERT INTO durable_notify.access AS a (role, action, pattern, group_name, regex)
    SELECT grantee, action, COALESCE(t.topic, ''), COALESCE(group_name, ''),
           COALESCE(durable_notify._topic_regex(t.topic), '')
      FROM (SELECT 1) AS one LEFT JOIN pg_catalog.unnest(topics) AS t (topic) ON true
    ON CONFLICT ON CONSTRAINT access_pkey DO NOTHING;
    PERFORM durable_notify._apply_grants(grantee);
END
$function$;
