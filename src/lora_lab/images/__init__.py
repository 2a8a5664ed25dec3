"""Image files: text in pictures, and what a PNG tells of its making."""
