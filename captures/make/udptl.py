#!/usr/bin/env python3
"""Sends N datagrams that look like T.38 UDPTL (sequence number, one indicator). usage: udptl.py FROM_IP,PORT TO_IP,PORT N"""
import socket, struct, sys, time

(src, sport), (dst, dport) = (a.rsplit(",", 1) for a in sys.argv[1:3])
s = socket.socket(socket.AF_INET6 if ":" in src else socket.AF_INET, socket.SOCK_DGRAM)
s.bind((src, int(sport)))
for n in range(int(sys.argv[3])):
    s.sendto(struct.pack(">HBBBB", n, 1, 6, 0, 0), (dst, int(dport)))
    time.sleep(0.02)
