"""The ledger: one suite for both twins, and what only a real file can go through."""
