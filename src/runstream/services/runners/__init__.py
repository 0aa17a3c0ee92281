"""Runners: what they are told, and how they say that they are alive."""
