"""The trace: one fixed-size record for every trap, exact counters, and rings that hold the latest records."""
