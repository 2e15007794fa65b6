"""What operators and those who test for them need: units, examples, and the chaos program."""
