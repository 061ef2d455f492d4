DROP PROCEDURE durable_notify._grantable;
-- PostgreSQL lets every role call a new function. Only the owner calls these, and the roles that it
-- grants.
REVOKE EXECUTE ON ALL ROUTINES IN SCHEMA durable_notify FROM PUBLIC;
