"""The built-in destinations, one file each, found by entry point."""
