"""The firewall: nft, or iptables where the kernel has no nf_tables, and the forward gate."""
