CREATE FUNCTION durable_notify._save_position(
    old_pos durable_notify.position, new_pos durable_notify.position, lease_tokens bigint[]
) RETURNS void
LANGUAGE plpgsql AS $function$
#variable_conflict use_column
BEGIN
    -- Append a subscription's new position and delete exactly the one before it. The caller holds the
    -- group's lock.
    -- Trap: a row that is updated in place, or "DELETE ... seq < newest", is walked version by version
    -- while a transaction holds xmin.
    -- Trap: delete first. In a frozen snapshot the old position may not be the newest any more: that is
    -- a serialization failure (40001) here, and would be a duplicate key there.
    DELETE FROM durable_notify.position q
     WHERE q.subscription_id = old_pos.subscription_id AND q.seq = old_pos.seq;
    INSERT INTO durable_notify.position (subscription_id, seq, s0, h0, s1, h1, p, lease_tokens, expired)
    VALUES (old_pos.subscription_id, old_pos.seq + 1, new_pos.s0, new_pos.h0,
            new_pos.s1, new_pos.h1, new_pos.p, _save_position.lease_tokens, new_pos.expired);
END
$function$;
