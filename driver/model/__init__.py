"""The nouns: stored, on the host, known of the host; and the protocols between rooms."""
