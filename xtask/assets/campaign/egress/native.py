"""The same world on this machine, at full scale: the guest is a network namespace, whose TAP device ends in netproxy as a sandbox's network does.
There is no machine, and no walls around netproxy. Adds package managers and tunnels. Arguments: a folder, and the program `egress_load`."""

import contextlib
import pathlib
import subprocess
import sys
import time

import driver
import mirror
from world import TUNNEL_SERVER
from driver import DOMAIN, Orders, Site, expect, more, nothing_else

SCALE = driver.Scale(rounds=10_000, attempts=100_000, connections=500, mebibytes=1024, pushed=100)
TUNNEL = f"tunnel.{DOMAIN}"
IODINED, PTUNNELD = TUNNEL_SERVER, "45.81.0.55"
WILDCARD = f'[[allow]]\nhost = "*.{DOMAIN}"\n'


class NativeSite(Site):
    scale = SCALE

    def __init__(self, place, program):
        super().__init__(place, None)
        self.program, self.runs = program, 0
        mirror.make(self.place / "mirror")

    def outside(self, *words):
        """What runs in the namespace with everything in it."""
        return ["nsenter", "--net", "--target", str(self.world.child), *words]

    def sandbox(self):
        return Native(self)


class Native(Orders):
    """The guest's side, with a network of its own until it ends."""

    def __init__(self, site):
        site.runs += 1
        socket = site.place / f"link{site.runs}"
        self.parts = contextlib.ExitStack()
        self.worker = self.started([site.program, "worker", socket, "--policy", site.policy])
        holder = self.started(["unshare", "--net", "--mount", "sleep", "infinity"])
        self.within = ["nsenter", "--net", "--mount", "--target", str(holder.pid)]
        settings = site.place / "guest-resolv.conf"
        settings.write_text("nameserver 100.64.0.1\n")
        until(lambda: socket.exists() and self.ns(holder) != self.ns("self"))
        self.run("mount", "--bind", settings, "/etc/resolv.conf")
        self.started([*self.within, site.program, "tap", socket, "ours"])
        until(lambda: self.call(["ip", "link", "show", "tap0"], capture_output=True).returncode == 0)
        for words in (
            "link set lo up",
            "link set tap0 address 02:cf:00:00:00:02 mtu 1500",
            "address add 100.64.0.2/30 dev tap0",
            "link set tap0 up",
            "route add default via 100.64.0.1",
        ):
            self.run("ip", *words.split())
        # Another namespace of mounts begins at its root.
        script = 'cd "$1" && exec python3 guest.py'
        super().__init__([*self.within, "sh", "-c", script, "sh", site.workspace])

    @staticmethod
    def ns(process):
        process = getattr(process, "pid", process)
        return pathlib.Path(f"/proc/{process}/ns/mnt").readlink()

    def started(self, command):
        process = subprocess.Popen(command)
        self.parts.callback(process.wait)
        self.parts.callback(process.kill)
        return process

    def call(self, words, **options):
        return subprocess.run([*self.within, *words], **options)

    def run(self, *words):
        self.call(words, check=True)

    def egress_kib(self):
        return driver.peak_kib(self.worker.pid)

    def end(self):
        code = super().end()
        self.parts.close()
        return code


def until(is_so):
    limit = time.monotonic() + 20
    while not is_so():
        expect(time.monotonic() < limit, "it does not come up")
        time.sleep(0.05)


@contextlib.contextmanager
def running(words):
    process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def iodine_comes_up(enter, server, options):
    """Whether the far end of iodine's tunnel answers."""
    with running([*enter, "iodine", "-f", "-P", "x", *options, server, TUNNEL]):
        for _ in range(12):
            time.sleep(1)
            if subprocess.run([*enter, "ping", "-c1", "-W1", "10.99.0.1"], capture_output=True).returncode == 0:
                return True
    return False


def ptunnel_comes_up(enter, server):
    """Whether a connection through pings reaches an origin."""
    origin = driver.ORIGINS["evil"]
    with running([*enter, "ptunnel", "-p", server, "-lp", "8000", "-da", origin, "-dp", "80"]):
        for _ in range(4):
            time.sleep(1)
            done = subprocess.run([*enter, "curl", "-sS", "-m", "4", "http://127.0.0.1:8000/"], capture_output=True, text=True)
            if done.stdout == "origin\n":
                return True
    return False


def ways(gateway):
    """Each way of a tunnel. The servers are there, and a name server that leads to one."""
    return {
        "iodine by the name server": lambda enter: iodine_comes_up(enter, gateway or driver.NAME_SERVER, ["-r"]),
        "iodine straight to its server": lambda enter: iodine_comes_up(enter, IODINED, ["-r"]),
        "iodine in bare datagrams": lambda enter: iodine_comes_up(enter, IODINED, []),
        "pings to a server": lambda enter: ptunnel_comes_up(enter, PTUNNELD),
    }


def tunnels(site):
    """All of them without a network of ours, where each has to come up, and within it, where none may: also by a policy that covers the tunnel's name."""
    servers = [["iodined", "-f", "-c", "-P", "x", "-l", IODINED, "10.99.0.1/24", TUNNEL], ["ptunnel"]]
    with contextlib.ExitStack() as stack:
        for server in servers:
            stack.enter_context(running(site.outside(*server)))
        time.sleep(1)
        dead = [name for name, comes_up in ways(None).items() if not comes_up([])]
        expect(not dead, f"do not come up without us: {dead}")
        for policy in (driver.POLICY, driver.POLICY + WILDCARD):
            site.policy.write_text(policy)
            sandbox = site.sandbox()
            before = site.world.seen()
            alive = [name for name, comes_up in ways("100.64.0.1").items() if comes_up(sandbox.within)]
            nothing_else(site, before)
            sandbox.end()
            expect(not alive, f"come up: {alive}")
    site.policy.write_text(driver.POLICY)
    return f"{len(ways(None))} tunnels that come up without us, 0 of them and 0 packets by a policy that names two hosts and by one that covers the tunnel's name"


def said(got):
    return "; ".join(f"{name} {'has' if came else 'has not'} it: {text!r}" for name, (came, text) in got.items())


def packages(site, sandbox):
    certificate = site.place / "root.pem"
    before = site.world.seen()
    got = mirror.fetch(sandbox.call, site.place / "fetched", f"https://good.{DOMAIN}", certificate)
    seen = nothing_else(site, before)
    expect(all(came for came, _ in got.values()), said(got))
    expect(seen.get(f"sni good.{DOMAIN}", 0) >= len(got), f"the mirror was not asked: {seen}")
    before = site.world.seen()
    denied = mirror.fetch(sandbox.call, site.place / "denied", f"https://evil.{DOMAIN}", certificate)
    nothing_else(site, before)
    expect(not any(came for came, _ in denied.values()), said(denied))
    # The denied mirror is there, and would have given it.
    control = mirror.fetch(subprocess.run, site.place / "control", f"https://evil.{DOMAIN}", certificate)
    expect(all(came for came, _ in control.values()), said(control))
    expect(more(before, site.world.seen()).get(f"sni evil.{DOMAIN}", 0) > 0, "the sinks do not see it")
    return f"{', '.join(got)} each fetch a package from a mirror by https; from one that is not allowed none does, 0 packets"


def main():
    site = NativeSite(*sys.argv[1:])
    site.check("native, sinks count", lambda: driver.sinks_count(site))
    site.policy.write_text(driver.POLICY)
    sandbox = site.sandbox()
    site.check("native, allowed flows", lambda: driver.allowed(site, sandbox))
    site.check("native, attacks", lambda: driver.attacks(site, sandbox))
    site.check("native, package managers", lambda: packages(site, sandbox))
    site.check("native, rebinding", lambda: driver.rebinding(site, sandbox))
    site.check("native, transfer", lambda: driver.transfer(site, sandbox))
    site.check("native, git over https", lambda: driver.git(site, sandbox))
    site.check("native, websocket", lambda: driver.websocket(site, sandbox))
    site.check("native, server-sent events", lambda: driver.events(site, sandbox))
    site.check("native, parallel connections", lambda: driver.parallel(site, sandbox))
    site.check("native, flood", lambda: driver.flood(site, sandbox))
    sandbox.end()
    site.check("native, tunnels", lambda: tunnels(site))
    sys.exit(1 if site.failed else 0)


main()
