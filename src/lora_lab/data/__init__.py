"""Training data: from folders of images and captions to batches whose randomness is paired."""
