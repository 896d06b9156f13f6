"""Carries frames between two devices, and loses, doubles and delays some, as a bad network does.

Arguments: the devices, then how many packets of a thousand to lose, to double and to hold back, and a seed. Offloads stay
as they are: frames travel with the header that says what is still to be done for them.
"""
import heapq
import random
import select
import signal
import socket
import sys
import time

ETH_P_ALL = 3
SOL_PACKET, PACKET_VNET_HDR, PACKET_IGNORE_OUTGOING = 263, 15, 23
SO_RCVBUFFORCE = 33
HEADER = 10
HOLD = 0.004

near, far = sys.argv[1:3]
lose, double, hold, seed = map(int, sys.argv[3:7])
chance = random.Random(seed)
counts = {"carried": 0, "lost": 0, "doubled": 0, "held": 0}


def attach(name):
    end = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    end.setsockopt(SOL_PACKET, PACKET_VNET_HDR, 1)
    end.setsockopt(SOL_PACKET, PACKET_IGNORE_OUTGOING, 1)
    end.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 64 << 20)
    end.bind((name, ETH_P_ALL))
    end.setblocking(False)
    return end


def send(end, frame):
    counts["carried"] += 1
    try:
        end.send(frame)
    except OSError:
        counts["lost"] += 1


def finish(*_):
    print(" ".join(f"{name} {count}" for name, count in counts.items()), flush=True)
    sys.exit(0)


signal.signal(signal.SIGTERM, finish)
ends = {end.fileno(): end for end in (attach(near), attach(far))}
one, other = ends
across = {one: ends[other], other: ends[one]}
held, number = [], 0
print("ready", flush=True)
while True:
    wait = max(0.0, held[0][0] - time.monotonic()) if held else None
    ready, _, _ = select.select(list(ends), [], [], wait)
    for end in ready:
        for _ in range(64):
            try:
                frame = ends[end].recv(1 << 17)
            except BlockingIOError:
                break
            ip = frame[HEADER + 12:HEADER + 14] in (b"\x08\x00", b"\x86\xdd")
            fate = chance.randrange(1000) if ip else 1000
            if fate < lose:
                counts["lost"] += 1
            elif fate < lose + double:
                counts["doubled"] += 1
                send(across[end], frame)
                send(across[end], frame)
            elif fate < lose + double + hold:
                counts["held"] += 1
                number += 1
                heapq.heappush(held, (time.monotonic() + HOLD * chance.random(), number, across[end], frame))
            else:
                send(across[end], frame)
    while held and held[0][0] <= time.monotonic():
        _, _, end, frame = heapq.heappop(held)
        send(end, frame)
