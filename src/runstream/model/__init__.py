"""The pure rules: ids, phases, merge, names, errors, page tokens. No I/O, no clock, no grpc."""
