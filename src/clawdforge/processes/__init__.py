"""Hosting of child processes. The only package that starts or kills a process; knows no actor."""
