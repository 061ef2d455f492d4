"""Bridges in and out: programs that only LISTEN and NOTIFY, adopted."""
