"""Ringside's engine: hosts, hypervisors and guests. Pure: no Flask, no sockets, no wall clock (worker.py
alone talks to the outside)."""
