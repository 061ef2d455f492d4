"""See it: what is watched, measured and examined of a database and its consumers."""
