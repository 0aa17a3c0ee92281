"""Transfer: what another server has comes in as it was there."""
