"""What happens by itself: the queue and its runners, leases, deadlines, housekeeping. The clock is passed in."""
