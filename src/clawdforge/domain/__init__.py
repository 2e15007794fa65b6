"""Pure decisions and the words they are made of. No I/O, no clock (now is an argument), no trio."""
