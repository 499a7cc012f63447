"""Plugins that are downloaded, from the registries `cloudquery` and `github` into a cache that processes share."""
