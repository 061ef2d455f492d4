"""Compare durable_notify with its peers, each used as its own documentation advises."""
