"""Pure wire formats: bytes and dicts in, values out. No I/O, no clock, no trio."""
