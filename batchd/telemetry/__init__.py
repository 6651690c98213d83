"""What the daemon says about itself: a closed list of events, and how they become log lines."""
