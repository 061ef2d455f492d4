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
