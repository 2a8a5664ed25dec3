"""The commands: arguments, help, exit statuses, the training command and the sweep."""
