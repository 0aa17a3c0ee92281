"""The care of a data folder that no server holds: doctor, backup and restore."""
