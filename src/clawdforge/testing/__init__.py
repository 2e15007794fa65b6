"""What other programs need to test against the real app, offline. Tested like the rest."""
