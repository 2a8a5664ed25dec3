"""A run folder: its record, its locks, resuming, and the files that others read from it."""
