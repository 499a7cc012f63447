"""The built-in sources, one file each, found by entry point."""
