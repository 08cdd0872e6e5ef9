"""The adapters: each makes one kind of object on the host be what a plan says."""
