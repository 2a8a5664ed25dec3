"""The embedded model: its drawings, its pretraining, its weights and its person."""
