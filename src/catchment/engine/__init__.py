"""The engine: plans a sync and runs it."""
