"""From words to hidden states of the text encoder."""
