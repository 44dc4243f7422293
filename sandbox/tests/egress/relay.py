"""A cable that loses half of what it carries: passes frames between two interfaces, each or none as a coin says."""

import random
import select
import socket
import sys

SOL_PACKET, VNET_HDR, ALL = 263, 15, 3
ends = []
for name in sys.argv[1:]:
    end = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ALL))
    # With what says how far the checksum is done.
    end.setsockopt(SOL_PACKET, VNET_HDR, 1)
    end.bind((name, 0))
    ends.append(end)
print("ready", flush=True)
while True:
    for end in select.select(ends, [], [])[0]:
        frame, address = end.recvfrom(1 << 17)
        if address[2] != socket.PACKET_OUTGOING and random.random() < 0.5:
            try:
                ends[1 - ends.index(end)].send(frame)
            except OSError:
                pass
