"""flannel's keys in etcd, this host's lease, and its peers."""
