"""The ledger: what must outlive the process. Knows no actor and no HTTP."""
