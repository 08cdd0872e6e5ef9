"""What makes a host ready for the service: its settings file and checks."""
