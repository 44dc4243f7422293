"""What is outside of the host: a network namespace that answers at every address, and counts every packet and query.

It is joined to the host's namespace by a veth pair only; there is no way on from here. `start` gives the side that the host talks to.
"""

import base64
import collections
import ctypes
import hashlib
import http.server
import json
import os
import pathlib
import socket
import ssl
import struct
import subprocess
import threading
import time

CLONE_NEWNET = 0x40000000
# The worker refuses documentation ranges, so these look like anybody's.
HOST, GATEWAY, NAME_SERVER = "45.80.0.2", "45.80.0.1", "45.81.0.53"
HOST6, GATEWAY6 = "2a0e:b107:1::2", "2a0e:b107:1::1"
OPEN_RESOLVER = "8.8.8.8"
# Who answers for the names below `tunnel`.
TUNNEL_SERVER = "45.81.0.54"
DOMAIN = "testworld.net"
ORIGINS = {"good": "93.184.216.10", "plain": "93.184.216.11", "evil": "93.184.216.66", "flip": "93.184.216.12"}
# What a name server that lies answers after the first time: private, link-local, loopback, the host's own, the gateway.
FLIPS = ["10.6.6.6", "169.254.169.254", "127.0.0.1", HOST, GATEWAY, "192.168.1.1", "100.64.0.1"]
# Neighbours, routers and group memberships: what any interface with an IPv6 address says by itself.
HOUSEKEEPING6 = {133, 134, 135, 136, 143}
LISTENS = [80, 443]
# How connections to the host itself are counted.
LOCAL = f"packet tcp {HOST} 80"


def ip(*words):
    subprocess.run(["ip", *words], check=True)


class Sink:
    """Counts packets by what they are and where they go, queries by name, requests by the names they carry."""

    def __init__(self, interface):
        self.lock = threading.Lock()
        self.counts = collections.Counter()
        self.socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
        self.socket.setsockopt(socket.SOL_SOCKET, 33, 64 << 20)  # SO_RCVBUFFORCE
        self.socket.bind((interface, 0))

    def add(self, *key):
        with self.lock:
            self.counts[" ".join(str(part) for part in key)] += 1

    def sniff(self):
        while True:
            frame, address = self.socket.recvfrom(65536)
            if address[2] != socket.PACKET_OUTGOING:
                key = classify(frame)
                if key:
                    self.add("packet", *key)

    def dump(self):
        # struct tpacket_stats; reading it sets it back.
        seen, lost = struct.unpack("II", self.socket.getsockopt(263, 6, 8))
        with self.lock:
            return {"counts": dict(self.counts), "lost": lost}


def classify(frame):
    """Protocol, destination and port of a frame; nothing for ARP and IPv6's housekeeping."""
    kind = struct.unpack("!H", frame[12:14])[0]
    packet = frame[14:]
    if kind == 0x0806:
        return None
    if kind == 0x0800:
        protocol, to = packet[9], socket.inet_ntoa(packet[16:20])
        rest = packet[(packet[0] & 15) * 4:]
    elif kind == 0x86DD:
        protocol, to = packet[6], socket.inet_ntop(socket.AF_INET6, packet[24:40])
        rest = packet[40:]
        # Reports of memberships have an option before them.
        if protocol == 0 and rest[0] == 58 and rest[8] in HOUSEKEEPING6:
            return None
        if protocol == 58 and rest[0] in HOUSEKEEPING6:
            return None
    else:
        return f"ethertype-{kind:04x}", "-", 0
    name = {1: "icmp", 6: "tcp", 17: "udp", 58: "icmp6"}.get(protocol, f"protocol-{protocol}")
    port = struct.unpack("!H", rest[2:4])[0] if protocol in (6, 17) and len(rest) >= 4 else 0
    return name, to, port


def read_name(query):
    labels, at = [], 12
    while query[at]:
        labels.append(query[at + 1:at + 1 + query[at]].decode("latin-1"))
        at += 1 + query[at]
    return ".".join(labels).lower(), at + 1


class NameServer:
    """Authoritative for everything; the address of `flip` is another one each time."""

    def __init__(self, sink):
        self.sink, self.flips = sink, 0

    def answer(self, query):
        name, end = read_name(query)
        kind = struct.unpack("!H", query[end:end + 2])[0]
        self.sink.add("query", name)
        address = self.address(name) if kind == 1 else None
        flags = 0x8580 if name.endswith(DOMAIN) or address else 0x8583
        head = query[:2] + struct.pack("!HHHHH", flags, 1, 1 if address else 0, 0, 0)
        reply = head + query[12:end + 4]
        if address:
            reply += struct.pack("!HHHIH", 0xC00C, 1, 1, 0, 4) + socket.inet_aton(address)
        return reply

    def address(self, name):
        if name == f"flip.{DOMAIN}":
            self.flips += 1
            return ORIGINS["flip"] if self.flips == 1 else FLIPS[self.flips % len(FLIPS)]
        return ORIGINS.get(name.removesuffix(f".{DOMAIN}"), ORIGINS["evil"])

    def delegate(self, server, query, sender):
        """Leads to the name server of a tunnel, as one does that is asked for all names."""
        self.sink.add("query", f"tunnel.{DOMAIN}")
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as onward:
            onward.settimeout(5)
            onward.connect((TUNNEL_SERVER, 53))
            try:
                onward.send(query)
                server.sendto(onward.recv(4096), sender)
            except OSError:
                pass

    def serve(self, address):
        server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        server.bind((address, 53))
        while True:
            query, sender = server.recvfrom(4096)
            try:
                if read_name(query)[0].endswith(f"tunnel.{DOMAIN}"):
                    threading.Thread(target=self.delegate, args=(server, query, sender), daemon=True).start()
                    continue
                server.sendto(self.answer(query), sender)
            except (IndexError, struct.error):
                self.sink.add("query", "malformed")


def handler(sink):
    class Origin(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self):
            sink.add("request", self.headers.get("Host"))
            if self.headers.get("Upgrade") == "websocket":
                return self.echo_messages()
            if self.path == "/events":
                return self.events()
            if self.path.startswith("/git/"):
                return self.git(b"")
            if self.path.startswith("/mirror/"):
                return self.mirror()
            length = int(self.path.rsplit("/", 1)[1]) if self.path.startswith("/bytes/") else 7
            piece = b"origin\n" if length == 7 else bytes(65536)
            self.send_response(200)
            self.send_header("Content-Length", str(length))
            self.end_headers()
            while length > 0:
                self.wfile.write(piece[:length])
                length -= len(piece)

        def do_POST(self):
            sink.add("request", self.headers.get("Host"))
            left = int(self.headers["Content-Length"])
            if self.path.startswith("/git/"):
                return self.git(self.rfile.read(left))
            total = left
            while left > 0:
                left -= len(self.rfile.read(min(left, 65536)))
            text = str(total).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        def echo_messages(self):
            """A WebSocket (RFC 6455) that sends each short message back."""
            key = self.headers["Sec-WebSocket-Key"] + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
            self.send_response(101)
            self.send_header("Upgrade", "websocket")
            self.send_header("Connection", "Upgrade")
            self.send_header("Sec-WebSocket-Accept", base64.b64encode(hashlib.sha1(key.encode()).digest()).decode())
            self.end_headers()
            self.close_connection = True
            while head := self.rfile.read(2):
                length = head[1] & 127
                mask, masked = self.rfile.read(4), self.rfile.read(length)
                text = bytes(byte ^ mask[at % 4] for at, byte in enumerate(masked))
                self.wfile.write(bytes([0x81, length]) + text)

        def events(self):
            """Server-sent events, with a wait before each."""
            self.send_response(200)
            self.send_header("Content-Type", "text/event-stream")
            self.send_header("Connection", "close")
            self.end_headers()
            for number in range(5):
                time.sleep(0.4)
                self.wfile.write(f"data: {number}\n\n".encode())

        def git(self, body):
            """Git's own server, as CGI (RFC 3875)."""
            path, _, query = self.path.partition("?")
            settings = {
                "PATH": os.environ["PATH"],
                "GIT_PROJECT_ROOT": os.environ["REPOSITORIES"],
                "GIT_HTTP_EXPORT_ALL": "1",
                # Whoever has a name may push.
                "REMOTE_USER": "guest",
                "PATH_INFO": path.removeprefix("/git"),
                "QUERY_STRING": query,
                "REQUEST_METHOD": self.command,
                "CONTENT_TYPE": self.headers.get("Content-Type", ""),
                "CONTENT_LENGTH": str(len(body)),
                "HTTP_CONTENT_ENCODING": self.headers.get("Content-Encoding", ""),
                "GIT_PROTOCOL": self.headers.get("Git-Protocol", ""),
            }
            done = subprocess.run(["git", "http-backend"], input=body, stdout=subprocess.PIPE, env=settings)
            head, _, content = done.stdout.partition(b"\r\n\r\n")
            lines = [line.split(": ", 1) for line in head.decode().split("\r\n")]
            status = next((value for name, value in lines if name == "Status"), "200")
            self.send_response(int(status.split()[0]))
            for name, value in lines:
                if name not in ("Status", "Content-Length"):
                    self.send_header(name, value)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def mirror(self):
            """A file of the mirrors. What is said in them of this origin is by the name that it was asked by."""
            file = pathlib.Path(os.environ["MIRROR"]) / self.path.removeprefix("/mirror/").partition("?")[0]
            if file.is_dir():
                file /= "index.html"
            is_there = file.is_file()
            content = file.read_bytes().replace(b"@ORIGIN@", f"https://{self.headers['Host']}".encode()) if is_there else b""
            self.send_response(200 if is_there else 404)
            self.send_header("Content-Length", str(len(content)))
            # pip asks for it.
            self.send_header("Content-Type", "text/html" if file.suffix == ".html" else "application/octet-stream")
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_):
            pass

    return Origin


class Server(http.server.ThreadingHTTPServer):
    request_queue_size = 1024
    daemon_threads = True
    context = None

    def handle_error(self, request, address):
        pass

    def finish_request(self, request, address):
        request.settimeout(60)
        if self.context:
            request = self.context.wrap_socket(request, server_side=True)
        super().finish_request(request, address)


class Server6(Server):
    address_family = socket.AF_INET6

    def server_bind(self):
        self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        super().server_bind()


def serve_origins(sink, certificate, key):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    context.sni_callback = lambda _socket, name, _context: sink.add("sni", name)
    for port in LISTENS:
        for kind, address in ((Server, ""), (Server6, "::")):
            server = kind((address, port), handler(sink))
            server.context = context if port == 443 else None
            threading.Thread(target=server.serve_forever, daemon=True).start()


def work(control, certificate, key):
    """The process in the other namespace."""
    if ctypes.CDLL(None, use_errno=True).unshare(CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "unshare")
    control.sendall(b"{}\n")
    lines = control.makefile("r")
    lines.readline()  # the host has put its end of the cable here
    ip("link", "set", "lo", "up")
    ip("link", "set", "down0", "addrgenmode", "none", "up")
    ip("addr", "add", f"{GATEWAY}/30", "dev", "down0")
    ip("addr", "add", f"{GATEWAY6}/64", "dev", "down0", "nodad")
    for address in (NAME_SERVER, OPEN_RESOLVER):
        ip("addr", "add", f"{address}/32", "dev", "lo")
    # Whatever is dialled is here: a connection that policy lets slip comes up.
    ip("route", "add", "local", "default", "dev", "lo")
    ip("-6", "route", "add", "local", "default", "dev", "lo")
    sink = Sink("down0")
    server = NameServer(sink)
    for address in (NAME_SERVER, OPEN_RESOLVER):
        threading.Thread(target=server.serve, args=(address,), daemon=True).start()
    serve_origins(sink, certificate, key)
    threading.Thread(target=sink.sniff, daemon=True).start()
    control.sendall(b"{}\n")
    for _ in lines:
        control.sendall(json.dumps(sink.dump()).encode() + b"\n")


class World:
    """The host's side of it."""

    def __init__(self, certificate, key):
        own, other = socket.socketpair()
        child = os.fork()
        if child == 0:
            own.close()
            try:
                work(other, certificate, key)
            finally:
                os._exit(1)
        other.close()
        # Its network is the outside.
        self.child = child
        self.control, self.lines, self.barriers, self.lost = own, own.makefile("r"), 0, 0
        self.wait()
        ip("link", "set", "lo", "up")
        ip("link", "add", "up0", "type", "veth", "peer", "name", "down0", "netns", str(child))
        ip("link", "set", "up0", "addrgenmode", "none", "up")
        self.ask()
        ip("addr", "add", f"{HOST}/30", "dev", "up0")
        ip("addr", "add", f"{HOST6}/64", "dev", "up0", "nodad")
        ip("route", "add", "default", "via", GATEWAY)
        ip("-6", "route", "add", "default", "via", GATEWAY6)
        # What is dialled on the host itself does not pass the cable.
        self.local = 0
        threading.Thread(target=self.serve_locally, daemon=True).start()

    def serve_locally(self):
        with socket.create_server(("", 80)) as server:
            while True:
                stream, _ = server.accept()
                self.local += 1
                stream.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\nConnection: close\r\n\r\norigin\n")
                stream.close()

    def wait(self):
        line = self.lines.readline()
        if not line:
            raise RuntimeError("the outside is gone")
        return json.loads(line)

    def ask(self):
        self.control.sendall(b"\n")
        return self.wait()

    def seen(self):
        """All counts, with what was sent before this call among them: packets are counted in order."""
        self.barriers += 1
        port = 20000 + self.barriers
        mark = f"packet udp {GATEWAY} {port}"
        limit = time.monotonic() + 20
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            sender.sendto(b"barrier", (GATEWAY, port))
        while time.monotonic() < limit:
            said = self.ask()
            self.lost += said["lost"]
            if mark in said["counts"]:
                marks = f"packet udp {GATEWAY} 2"
                counts = {key: count for key, count in said["counts"].items() if not key.startswith(marks)}
                return counts | {LOCAL: self.local}
            time.sleep(0.02)
        raise RuntimeError("the sink does not count")
