"""The built-in transformers, one file each, found by entry point."""
