"""What other systems are told of a run: OpenTelemetry (OTLP over HTTP) and Prometheus' text files, if asked for."""
