DROP PROCEDURE durable_notify._grantable;
-- PostgreSQL lets everybody call a new function. Nobody but the owner calls these, and whom it lets.
REVOKE EXECUTE ON ALL ROUTINES IN SCHEMA durable_notify FROM PUBLIC;
