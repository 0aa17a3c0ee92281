"""Transports: bind the services to wires. The call gate stands between every wire and every service."""
