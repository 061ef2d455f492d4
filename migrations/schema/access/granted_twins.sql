-- For each function that others than the owner may call, its twin _name_granted(): it runs with the owner's
-- rights, refuses what the caller was not granted, and calls the function. What each asks for stands here
-- and nowhere else, but for _publish_granted(); tests/security looks whether a function is missing.
DO $block$
DECLARE
    twin record;
    names text;
    outs text;
    call text;
BEGIN
    FOR twin IN
        SELECT p.oid, p.proname, p.proretset, p.prorettype, p.provolatile, p.proargnames, p.proargmodes, t.before, t.fits
          FROM (VALUES
              ('publish_many', $$PERFORM durable_notify._require('publish', ARRAY[topic]);$$, NULL),
              ('capture_begin', $$PERFORM durable_notify._require('publish', ARRAY[topic]);$$, NULL),
              ('capture', $$PERFORM durable_notify._require('publish', ARRAY[topic]);$$, NULL),
              ('capture_progress', $$PERFORM durable_notify._require('publish', ARRAY[topic]);$$, NULL),
              ('already_published', $$PERFORM durable_notify._require('publish', ARRAY[topic]);$$, NULL),
              ('subscribe', $$PERFORM durable_notify._require('consume', topics, group_name);$$, NULL),
              ('discover', $$PERFORM durable_notify._require('consume', patterns, group_name);$$, NULL),
              ('pause', $$PERFORM durable_notify._require('consume', NULL, group_name);$$, NULL),
              ('resume', $$PERFORM durable_notify._require('consume', NULL, group_name);$$, NULL),
              ('configure', $$PERFORM durable_notify._require('consume', NULL, group_name);$$, NULL),
              ('claim', $$PERFORM durable_notify._require('consume', topics, group_name);$$, NULL),
              ('next_due', $$PERFORM durable_notify._require('consume', topics, group_name);$$, NULL),
              ('never_published', $$PERFORM durable_notify._require('consume', topics, group_name);$$, NULL),
              ('once', $$PERFORM durable_notify._require('consume', NULL, group_name);$$, NULL),
              ('unacknowledged', $$PERFORM durable_notify._require('consume', NULL, group_name);$$, NULL),
              ('renew_active', $$PERFORM durable_notify._require('consume', NULL, group_name);$$, NULL),
              ('resign_active', $$PERFORM durable_notify._require('consume', NULL, group_name);$$, NULL),
              -- A lease of others is as one that is no more.
              ('settle', $$PERFORM durable_notify._require('consume', NULL, NULL, true);
                           IF durable_notify._visible_leases(ARRAY[token]) = '{}' THEN
                               PERFORM durable_notify._raise_lease_lost(token);
                           END IF;$$, NULL),
              ('extend', $$PERFORM durable_notify._require('consume', NULL, NULL, true);
                           tokens := durable_notify._visible_leases(tokens);$$, NULL),
              ('release', $$PERFORM durable_notify._require('consume', NULL, NULL, true);
                            tokens := durable_notify._visible_leases(tokens);$$, NULL),
              ('seek', $$PERFORM durable_notify._require('consume', ARRAY[topic], group_name);$$, NULL),
              ('start_replay', $$PERFORM durable_notify._require('consume', ARRAY[topic], group_name);$$, NULL),
              ('advance_replays', $$PERFORM durable_notify._require('consume', topics, group_name);$$, NULL),
              ('cancel_replay', $$PERFORM durable_notify._require('consume', NULL, NULL, true);
                                  IF NOT EXISTS (
                                      SELECT FROM durable_notify.replay_jobs() AS j
                                       WHERE j.job_id = _cancel_replay_granted.job_id
                                         AND durable_notify._has_grant('consume', j.topic, j.group_name)) THEN
                                      RETURN false;
                                  END IF;$$, NULL),
              ('redrive', $$PERFORM durable_notify._require(
                                'consume', durable_notify._topics_or_all(group_name, topic), group_name);$$, NULL),
              ('discard', $$PERFORM durable_notify._require(
                                'consume', durable_notify._topics_or_all(group_name, topic), group_name);$$, NULL),
              ('read_from', $$PERFORM durable_notify._require('read', ARRAY[topic]);$$, NULL),
              ('read', $$PERFORM durable_notify._require('read', ARRAY[topic]);$$, NULL),
              ('latest', $$PERFORM durable_notify._require('read', ARRAY[topic]);$$, NULL),
              ('log_id', $$PERFORM durable_notify._require('read');$$, NULL),
              ('topics', $$PERFORM durable_notify._require('read');$$, $$durable_notify._has_grant('read', f.topic, NULL)$$),
              ('status', $$PERFORM durable_notify._require_observe();$$, $$durable_notify._can_observe(f.group_name, f.topic)$$),
              ('backlog', $$PERFORM durable_notify._require_observe();$$, $$durable_notify._can_observe(f.group_name, f.topic)$$),
              ('leases', $$PERFORM durable_notify._require_observe();$$, $$durable_notify._can_observe(f.group_name, f.topic)$$),
              ('progress', $$PERFORM durable_notify._require_observe();$$, $$durable_notify._can_observe(f.group_name, f.topic)$$),
              ('messages_between', $$PERFORM durable_notify._require_observe();$$, NULL),
              ('groups', $$PERFORM durable_notify._require_observe();$$, $$durable_notify._can_observe(f.name, NULL)$$),
              ('blocking_publishers', $$PERFORM durable_notify._require_observe(group_name);$$, NULL),
              ('replay_jobs', $$PERFORM durable_notify._require_observe();$$, $$durable_notify._can_observe(f.group_name, f.topic)$$),
              ('dead_letters', $$PERFORM durable_notify._require_observe(group_name);$$, $$durable_notify._can_observe(f.of_group, f.of_topic)$$),
              ('audit_entries', $$PERFORM durable_notify._require_observe(group_name);$$, $$durable_notify._can_observe(f.group_name, f.topic)$$),
              ('lost_messages', $$PERFORM durable_notify._require_observe(group_name);$$, $$durable_notify._can_observe(f.of_group, f.topic)$$),
              ('retention_blockers', $$PERFORM durable_notify._require_observe();$$, $$durable_notify._can_observe(f.group_name, f.topic)$$),
              ('retention', $$PERFORM durable_notify._require_observe();$$, NULL)
          ) AS t (name, before, fits)
          JOIN pg_catalog.pg_proc p ON p.pronamespace = 'durable_notify'::regnamespace AND p.proname = t.name
    LOOP
        SELECT pg_catalog.string_agg(a.name, ', ' ORDER BY a.ord) FILTER (WHERE COALESCE(a.mode, 'i') = 'i'),
               pg_catalog.string_agg(a.name, ', ' ORDER BY a.ord) FILTER (WHERE a.mode = 'o')
          INTO names, outs
          FROM ROWS FROM (pg_catalog.unnest(twin.proargnames), pg_catalog.unnest(twin.proargmodes::text[]))
               WITH ORDINALITY AS a (name, mode, ord);
        call := pg_catalog.format('durable_notify.%s(%s)', twin.proname, names);
        EXECUTE pg_catalog.format(
            $$CREATE FUNCTION durable_notify._%s_granted(%s) RETURNS %s LANGUAGE plpgsql %s SECURITY DEFINER
              SET search_path = pg_catalog, durable_notify, pg_temp SET standard_conforming_strings = on AS %L$$,
            twin.proname, pg_catalog.pg_get_function_identity_arguments(twin.oid),
            pg_catalog.pg_get_function_result(twin.oid),
            CASE twin.provolatile WHEN 's' THEN 'STABLE' ELSE 'VOLATILE' END,
            pg_catalog.format(E'\n#variable_conflict use_variable\nBEGIN\n'
                '    -- %s() for whom the table access allows it; it calls this by itself.\n    %s\n    %s\nEND\n',
                twin.proname, pg_catalog.regexp_replace(twin.before, '\n +', E'\n    ', 'g'),
                CASE WHEN twin.fits IS NOT NULL
                     THEN pg_catalog.format('RETURN QUERY SELECT f.* FROM %s AS f WHERE %s;', call, twin.fits)
                     WHEN twin.proretset THEN pg_catalog.format('RETURN QUERY SELECT * FROM %s;', call)
                     WHEN outs IS NOT NULL THEN pg_catalog.format('SELECT f.* INTO %s FROM %s AS f;', outs, call)
                     WHEN twin.prorettype = 'void'::regtype THEN pg_catalog.format('PERFORM %s;', call)
                     ELSE pg_catalog.format('RETURN %s;', call) END));
    END LOOP;
END
$block$;
