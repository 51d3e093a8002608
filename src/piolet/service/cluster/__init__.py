"""What operators own of the service plane, rendered from the same `platform.toml` that services are checked against."""
