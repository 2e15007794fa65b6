"""The actor tree: mailboxes, supervision, sessions, pool, sweeper. Knows ports, not adapters."""
