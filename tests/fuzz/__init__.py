"""Fuzzers: hostile input against invariants. Each is a command, `python -m tests.fuzz.NAME --count N --seed S`, and
runs a bounded number of inputs as a test.

A case is a function of its seed alone, so that what was found once is found again.
"""
