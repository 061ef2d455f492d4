CREATE FUNCTION durable_notify.removable_below(topic text) RETURNS bigint
LANGUAGE plpgsql STABLE STRICT
SET search_path = pg_catalog, durable_notify, pg_temp AS $function$
#variable_conflict use_column
DECLARE
    policy durable_notify.topic_retention := durable_notify.retention_of(topic);
    below bigint;
BEGIN
    -- Below which id every message of a topic may go now; 0: none.
    --
    -- All of one snapshot, and below what seal_log() has noted: nothing can appear there any more, so
    -- that a message which goes was settled by every group or recorded as its loss. Who removes holds
    -- hold_removing() first: after this looked, a message could be made to come again.
    -- A group's lag is the same for block and lose: what it loses is noted as such, by note_losses(),
    -- before it can go.
    IF policy.pattern IS NULL THEN
        RETURN 0;
    END IF;
    below := durable_notify.policy_below(topic, policy);
    IF policy.when_settled AND EXISTS (SELECT FROM durable_notify.subscription s WHERE s.topic = removable_below.topic) THEN
        below := 9223372036854775807;
    END IF;
    below := LEAST(below, durable_notify.sealed_below());
    IF policy.archive THEN
        below := LEAST(below, COALESCE(
            (SELECT p.archived_below FROM durable_notify.topic_progress p WHERE p.topic = removable_below.topic), 0));
    END IF;
    IF below <= 1 THEN
        RETURN 0;
    END IF;
    RETURN durable_notify.settled_by_all(topic, below);
END
$function$;
