"""Durable_notify beside its peers, each used as its own documentation says is fast."""
