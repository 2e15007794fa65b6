"""The actor tree: mailboxes, supervision, sessions, pool, sweeper. Knows ports, never their adapters."""
