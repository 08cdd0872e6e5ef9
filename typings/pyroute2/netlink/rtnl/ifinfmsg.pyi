from pyroute2.netlink import nlmsg  # noqa: TID251

class ifinfmsg(nlmsg): ...  # noqa: N801
