"""What other programs need to test against the real app, offline. Shipped and tested like the rest."""
