"""What happens by itself, in time: deadlines and housekeeping. The clock is passed in."""
