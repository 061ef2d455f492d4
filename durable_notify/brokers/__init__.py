"""Message brokers: relays out, and ingest in."""
