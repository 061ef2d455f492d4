"""Examine a database and its consumers: the doctor, its checks, status, probes."""
