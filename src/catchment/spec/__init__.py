"""What a user writes: the config model and its loader; knows nothing of plugins."""
