"""The plugin protocol v3 over gRPC: both sides of it, and how plugins are fetched and run."""
