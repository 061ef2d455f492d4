CREATE FUNCTION durable_notify.set_record_age(kind text, age interval) RETURNS void
LANGUAGE plpgsql
SET lock_timeout = '5s' SET search_path = pg_catalog, durable_notify, pg_temp AS $function$
#variable_conflict use_variable
BEGIN
    -- Set for how long records are kept; NULL: for ever. For the owner of the schema.
    --
    -- kind: 'inbox', what once() remembers: a message that is redelivered later counts as new; 'audit',
    -- the audit, losses and replays that have ended.
    IF kind IS NULL OR kind NOT IN ('inbox', 'audit') OR age <= '0' OR age > '1000 years' THEN
        RAISE EXCEPTION 'set the age of inbox or audit, more than 0 and 1000 years at most'
            USING ERRCODE = '22023', HINT = 'NULL keeps these records for ever. Nothing was changed.';
    END IF;
    INSERT INTO durable_notify.record_age AS r (kind, age) VALUES (kind, age)
    ON CONFLICT ON CONSTRAINT record_age_pkey DO UPDATE
       SET age = EXCLUDED.age, set_at = pg_catalog.clock_timestamp(), set_by = SESSION_USER;
END
$function$;

CREATE FUNCTION durable_notify.record_ages() RETURNS TABLE (kind text, age interval)
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, durable_notify, pg_temp AS $function$
#variable_conflict use_column
BEGIN
    -- For how long records are kept, by kind; NULL: for ever. See set_record_age().
    IF NOT durable_notify._is_owner() THEN
        RETURN QUERY SELECT * FROM durable_notify._record_ages_granted();
        RETURN;
    END IF;
    RETURN QUERY
    SELECT k.kind, durable_notify._age_of_records(k.kind) FROM pg_catalog.unnest('{inbox,audit}'::text[]) AS k (kind);
END
$function$;

CREATE FUNCTION durable_notify._age_of_records(kind text) RETURNS interval
LANGUAGE sql STABLE AS $function$
    -- For how long records of a kind are kept; NULL: for ever.
    SELECT r.age FROM durable_notify.record_age r WHERE r.kind = _age_of_records.kind
$function$;

CALL durable_notify._grantable('record_ages', '{observe,consume}', $$_require_observe()$$);
