CREATE FUNCTION durable_notify._filter_dead_letters(
    group_name text, topic text, ids bigint[], key text, error_type text, since timestamptz, until timestamptz
) RETURNS SETOF durable_notify.dead_letter
LANGUAGE sql STABLE AS $function$
    -- The dead letters of a group (NULL: of all) that match every condition that is not NULL.
    SELECT d.*
      FROM durable_notify.dead_letter d
      JOIN durable_notify.subscription s ON s.id = d.subscription_id
      JOIN durable_notify.consumer_group g ON g.id = s.group_id
     WHERE (_filter_dead_letters.group_name IS NULL OR g.name = _filter_dead_letters.group_name)
       AND (_filter_dead_letters.topic IS NULL OR d.topic = _filter_dead_letters.topic)
       AND (_filter_dead_letters.ids IS NULL OR d.message_id = ANY (_filter_dead_letters.ids))
       AND (_filter_dead_letters.key IS NULL OR d.key = _filter_dead_letters.key)
       AND (_filter_dead_letters.error_type IS NULL OR d.error ->> 'type' = _filter_dead_letters.error_type)
       AND (_filter_dead_letters.since IS NULL OR d.dead_at >= _filter_dead_letters.since)
       AND (_filter_dead_letters.until IS NULL OR d.dead_at < _filter_dead_letters.until)
$function$;

CREATE FUNCTION durable_notify._delete_dead_letters(
    action text, group_name text, topic text, ids bigint[], key text, error_type text, since timestamptz, until timestamptz,
    everything boolean, why text
) RETURNS SETOF durable_notify.dead_letter
LANGUAGE plpgsql AS $function$
#variable_conflict use_variable
BEGIN
    -- Delete dead letters, audit that and return them. Of two calls at the same time each gets its own.
    -- A dead letter that an open transaction replaces stays: this must not wait for it with the group's
    -- lock held.
    IF NOT everything AND pg_catalog.num_nonnulls(topic, ids, key, error_type, since, until) = 0 THEN
        RAISE EXCEPTION 'no condition says which dead letters of group "%" are meant', group_name
            USING ERRCODE = '22023', HINT = 'Give a condition, or everything => true.';
    END IF;
    PERFORM durable_notify._block_removal();  -- what is redelivered is not removed meanwhile
    PERFORM durable_notify._lock_group(group_name);
    RETURN QUERY
    WITH chosen AS (
        SELECT x.subscription_id, x.message_id, x.seq
          FROM durable_notify._filter_dead_letters(group_name, topic, ids, key, error_type, since, until) AS c
          JOIN durable_notify.dead_letter x USING (subscription_id, message_id, seq)
           FOR UPDATE OF x SKIP LOCKED),
    deleted AS (
        DELETE FROM durable_notify.dead_letter d USING chosen c
         WHERE d.subscription_id = c.subscription_id AND d.message_id = c.message_id AND d.seq = c.seq
        RETURNING d.*),
    audited AS (
        SELECT d.topic, durable_notify._record_audit(
                   action, group_name, pg_catalog.jsonb_build_object('ids', pg_catalog.jsonb_agg(DISTINCT d.message_id)),
                   d.topic, pg_catalog.count(DISTINCT d.message_id), why)
          FROM deleted d GROUP BY d.topic)
    SELECT d.* FROM deleted d JOIN audited a ON a.topic = d.topic;
END
$function$;
