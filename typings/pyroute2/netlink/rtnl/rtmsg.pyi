from pyroute2.netlink import nlmsg  # noqa: TID251

class rtmsg(nlmsg): ...  # noqa: N801
