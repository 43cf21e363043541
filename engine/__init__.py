"""Ringside's engine: hosts, hypervisors and guests. Pure: no Flask, no sockets, no wall clock, no files.

Two modules alone talk to the outside: worker.py to the web process, headless.py to a terminal.
"""
