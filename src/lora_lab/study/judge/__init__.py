"""Which runs may be compared, and what can be said of their differences."""
