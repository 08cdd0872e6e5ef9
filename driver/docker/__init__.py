"""Docker's own API: which Docker, and what it knows."""
