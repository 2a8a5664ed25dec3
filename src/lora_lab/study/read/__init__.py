"""What runs leave on disk, read for a comparison."""
