"""Chaos: the real server, real acpx, bad agents, and faults at random, with a seed to repeat them.

Run ``python -m ops.chaos --steps 60 --seed 1`` in a checkout. After each step it is checked that no
process is left over, no acknowledged turn is lost or ended twice, no slot has leaked, every request
was answered, and memory and descriptors are where they were.
"""
