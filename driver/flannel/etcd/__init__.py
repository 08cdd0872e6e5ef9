"""The etcd client."""
