from pyroute2.netlink import nlmsg  # noqa: TID251

class ifaddrmsg(nlmsg): ...  # noqa: N801
