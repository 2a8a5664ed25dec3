"""The report of a sweep: its page, its Markdown twin, its tables."""
