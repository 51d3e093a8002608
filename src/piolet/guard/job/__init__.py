"""What the processes of a running job open to others, on one node."""
