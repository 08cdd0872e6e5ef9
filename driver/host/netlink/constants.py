"""The numbers and layouts of netlink messages, by the kernel's names, and the marks of ours.

pyroute2 has most of them, but takes 0.1 s to load. The structs leave room for the header.
Source: linux/{netlink,rtnetlink,if_link,if_addr,neighbour,fib_rules,net_namespace,pkt_sched,
pkt_cls,filter}.h, linux/netfilter/{nfnetlink,nfnetlink_conntrack}.h, asm-generic/socket.h.
"""

from __future__ import annotations

import struct

# what marks ours
PROTOCOL = 91  # of routes; iproute2's rt_protos and the kernel assign it to nobody
METRIC = 91000  # of routes: another program's route to the same prefix goes first
GROUP = 26220  # of links; the kernel takes it when it makes a link, an alias only later
DOOMED = GROUP + 1  # of links that are being removed: together, in one grace period

# sockets
NETLINK_ROUTE, NETLINK_NETFILTER = 0, 12
SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, NETLINK_LISTEN_ALL_NSID = 270, 1, 8
NETLINK_CAP_ACK, NETLINK_EXT_ACK, NETLINK_GET_STRICT_CHK = 10, 11, 12
SO_ATTACH_FILTER, SO_RCVBUFFORCE = 26, 33
RTNLGRP_LINK, RTNLGRP_NEIGH, RTNLGRP_TC, RTNLGRP_IPV4_IFADDR, RTNLGRP_IPV4_ROUTE = 1, 3, 4, 5, 7

# messages
NLMSG_ERROR, NLMSG_DONE, NLMSG_OVERRUN = 2, 3, 4
NLM_F_REQUEST, NLM_F_ACK, NLM_F_DUMP_INTR, NLM_F_DUMP = 0x1, 0x4, 0x10, 0x300
NLM_F_REPLACE, NLM_F_EXCL, NLM_F_CREATE, NLM_F_APPEND = 0x100, 0x200, 0x400, 0x800
NLM_F_ACK_TLVS, NLMSGERR_ATTR_MSG = 0x200, 1
NEW, REPLACE = NLM_F_CREATE | NLM_F_EXCL, NLM_F_CREATE | NLM_F_REPLACE
NLMSGHDR = struct.Struct("=IHHII")  # length, kind, flags, number, port
NLMSGERR = struct.Struct("=16xi")  # negative errno; in an error the refused header follows
NLATTR = struct.Struct("=HH")  # length, kind
NLA_F_NESTED, NLA_TYPE_MASK = 0x8000, 0x3FFF

# links
RTM_NEWLINK, RTM_DELLINK, RTM_GETLINK = 16, 17, 18
IFINFOMSG = struct.Struct("=16xBxxxiII")  # family, index, flags, change
AF_BRIDGE = 7  # family of FDB entries, and of what a bridge reports of its ports
IFF_UP, IFF_LOWER_UP = 1, 1 << 16
IFLA_ADDRESS, IFLA_IFNAME, IFLA_MTU, IFLA_LINK, IFLA_MASTER, IFLA_PROTINFO = 1, 3, 4, 5, 10, 12
IFLA_LINKINFO, IFLA_IFALIAS, IFLA_GROUP, IFLA_EXT_MASK, IFLA_LINK_NETNSID = 18, 20, 27, 29, 37
IFLA_INFO_KIND, IFLA_INFO_DATA, IFLA_INFO_SLAVE_KIND, IFLA_INFO_SLAVE_DATA = 1, 2, 4, 5
IFLA_BRPORT_MODE, VETH_INFO_PEER = 4, 1
IFLA_VXLAN_ID, IFLA_VXLAN_LINK, IFLA_VXLAN_LOCAL, IFLA_VXLAN_LEARNING = 1, 3, 4, 7
IFLA_VXLAN_PORT, IFLA_VXLAN_GBP = 15, 23
RTEXT_FILTER_SKIP_STATS = 8

# addresses
RTM_NEWADDR, RTM_DELADDR, RTM_GETADDR = 20, 21, 22
IFADDRMSG = struct.Struct("=16x4Bi")  # family, prefix length, flags, scope, index
IFA_ADDRESS, IFA_LOCAL = 1, 2
IFA_F_DEPRECATED, IFA_F_PERMANENT = 0x20, 0x80

# routes and rules
RTM_NEWROUTE, RTM_DELROUTE, RTM_GETROUTE, RTM_NEWRULE, RTM_GETRULE = 24, 25, 26, 32, 34
# family, dst length, src length, tos, table, protocol, scope, type, flags; of a rule alike
RTMSG = struct.Struct("=16x8BI")
RTMSG_TABLE, RTMSG_PROTOCOL = 20, 21  # the places of two of these bytes
RTNEXTHOP = struct.Struct("=H2xi")  # of a route with several: its length, and the link
RT_TABLE_MAIN, RTPROT_KERNEL = 254, 2
RTN_UNICAST, RTN_UNREACHABLE = 1, 7
RT_SCOPE_UNIVERSE, RT_SCOPE_LINK, RT_SCOPE_NOWHERE = 0, 253, 255
RTNH_F_ONLINK = 4
RTA_DST, RTA_OIF, RTA_GATEWAY, RTA_PRIORITY, RTA_PREFSRC = 1, 4, 5, 6, 7
RTA_MULTIPATH, RTA_VIA = 9, 18
FR_ACT_TO_TBL, FRA_PRIORITY, FRA_SUPPRESS_PREFIXLEN, FRA_TABLE = 1, 6, 14, 15

# neighbours and FDB entries
RTM_NEWNEIGH, RTM_DELNEIGH, RTM_GETNEIGH = 28, 29, 30
NDMSG = struct.Struct("=16xB3xiHBB")  # family, index, state, flags, type
NUD_PERMANENT, NUD_NOARP = 0x80, 0x40
NUD_REACHABLE, NUD_STALE, NUD_DELAY, NUD_PROBE = 0x02, 0x04, 0x08, 0x10
NTF_SELF = 2
NDA_DST, NDA_LLADDR, NDA_IFINDEX = 1, 2, 8

# namespaces
RTM_GETNSID, NETNSA_NSID, NETNSA_FD = 90, 1, 3

# traffic control
RTM_NEWQDISC, RTM_DELQDISC, RTM_NEWTFILTER, RTM_DELTFILTER, RTM_GETTFILTER = 36, 37, 44, 45, 46
TCMSG = struct.Struct("=16xB3xiIII")  # family, index, handle, parent, info
TC_H_CLSACT_HANDLE, TC_H_CLSACT, TC_H_INGRESS = 0xFFFF0000, 0xFFFFFFF1, 0xFFFFFFF2
TCA_KIND, TCA_OPTIONS = 1, 2
TCA_BPF_OPS_LEN, TCA_BPF_OPS, TCA_BPF_FLAGS, TCA_BPF_FLAG_ACT_DIRECT = 4, 5, 8, 1

# steps of classic BPF: load a word, half or byte; compare; return
BPF_LD_W, BPF_LD_H, BPF_LD_B, BPF_AND, BPF_RET = 0x20, 0x28, 0x30, 0x54, 0x06
BPF_JEQ, BPF_JSET = 0x15, 0x45
SKF_AD_OFF, SKF_AD_PROTOCOL, SKF_AD_MARK = -0x1000, 0, 20

# flow tracking
NFGENMSG = struct.Struct("=16xBBH")  # family, version, resource
IPCTNL_MSG_CT_GET, IPCTNL_MSG_CT_DELETE = 1 << 8 | 1, 1 << 8 | 2  # of NFNL_SUBSYS_CTNETLINK
CTA_TUPLE_ORIG, CTA_TUPLE_REPLY, CTA_STATUS, CTA_ID, CTA_ZONE = 1, 2, 3, 12, 18
CTA_FILTER, CTA_STATUS_MASK, CTA_FILTER_ORIG_FLAGS, CTA_FILTER_REPLY_FLAGS = 25, 26, 1, 2
CTA_TUPLE_IP, CTA_TUPLE_PROTO, CTA_IP_V4_SRC, CTA_IP_V4_DST = 1, 2, 1, 2
CTA_PROTO_NUM, CTA_PROTO_DST_PORT = 1, 3
CTA_FILTER_IP_SRC, CTA_FILTER_IP_DST, CTA_FILTER_PROTO_NUM, CTA_FILTER_PROTO_DST_PORT = 1, 2, 8, 32
