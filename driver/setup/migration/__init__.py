"""The way from flanneld and dockerd's --bip to this driver, a step at a time."""
