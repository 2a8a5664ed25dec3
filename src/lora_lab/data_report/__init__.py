"""A look at a data folder before training: figures, findings, a contact sheet."""
