"""The conformance kit: suites that any plugin can be put through."""
