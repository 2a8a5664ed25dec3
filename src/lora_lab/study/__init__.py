"""The comparison of a sweep: load, pair, decide, draw, report."""
