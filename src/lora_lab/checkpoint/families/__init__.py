"""What each family of base models is."""
