CREATE FUNCTION durable_notify.bar_leaf(leaf regclass) RETURNS void
LANGUAGE plpgsql VOLATILE AS $function$
BEGIN
    -- Have a leaf refuse rows from here on; see refuse_late().
    EXECUTE pg_catalog.format(
        'CREATE OR REPLACE TRIGGER refuse_late AFTER INSERT ON %1$s FOR EACH ROW EXECUTE FUNCTION durable_notify.refuse_late();'
        ' ALTER TABLE %1$s ENABLE ALWAYS TRIGGER refuse_late', leaf);
END
$function$;
