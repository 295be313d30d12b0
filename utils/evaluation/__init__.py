"""A network and images become rows: one pass, the protocol, result files, validation."""
