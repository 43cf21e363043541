"""Fuzzers: each is a command for long runs, and a bounded number of its inputs is a test."""
