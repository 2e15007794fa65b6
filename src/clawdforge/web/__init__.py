"""HTTP in front of the actors. The only package that knows statuses and headers."""
