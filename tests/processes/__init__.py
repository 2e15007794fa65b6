"""Tests of processes: real ones, started and killed."""
