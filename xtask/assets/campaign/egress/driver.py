"""Builds the test world, lets guests loose in it, and prints `== NAME: PASS|FAIL OUTCOME` for each check. Arguments: a folder with `coffer`,
`kernel` and `initrd`, and the root image."""

import collections
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time

import guest
from world import DOMAIN, LOCAL, NAME_SERVER, ORIGINS, World

# How much of it: rounds of rebinding, connection attempts, connections at once, MiB of a transfer and of a push.
Scale = collections.namedtuple("Scale", "rounds attempts connections mebibytes pushed")
EGRESS_LIMIT_KIB = 64 * 1024

POLICY = f"""
[[allow]]
host = "good.{DOMAIN}"
[[allow]]
host = "plain.{DOMAIN}"
scheme = "http"
[[allow]]
host = "flip.{DOMAIN}"
scheme = "http"
"""
RELOADED = POLICY + f"""
[[allow]]
host = "*.later.{DOMAIN}"
"""
NAMES = {f"{name}.{DOMAIN}" for name in ("good", "plain", "flip")}


def is_allowed(key):
    """Whether policy lets this packet, query, request or SNI out."""
    kind, rest = key.split(" ", 1)
    if kind != "packet":
        return rest in NAMES
    protocol, to, port = rest.split(" ")
    if to == NAME_SERVER:
        return protocol == "udp" and port == "53"
    allowed = {("good", "443"), ("plain", "80"), ("flip", "80")}
    return protocol == "tcp" and any(to == ORIGINS[name] and port == at for name, at in allowed)


def more(before, after):
    return {key: count - before.get(key, 0) for key, count in after.items() if count > before.get(key, 0)}


class Orders:
    """A process that carries out orders."""

    def __init__(self, command, **options):
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, **options)

    def do(self, order, *words):
        self.process.stdin.write(json.dumps({"order": order, "with": words}) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"it ended at {order} {words}: {self.process.wait()}")
        answer = json.loads(line)
        if "error" in answer:
            raise RuntimeError(f"{order} {words}: {answer['error']}")
        return answer

    def end(self):
        self.process.stdin.close()
        return self.process.wait(timeout=120)


class Sandbox(Orders):
    """A guest in its machine."""

    def egress_kib(self):
        return peak_kib(self.egress_worker())

    def egress_worker(self):
        """The process that is the guest's network now."""
        for folder in pathlib.Path("/proc").glob("[0-9]*"):
            try:
                command, status = (folder / "cmdline").read_bytes(), (folder / "status").read_text()
            except OSError:
                continue
            lines = dict(line.split(":", 1) for line in status.splitlines() if ":" in line)
            is_ours = lines["PPid"].strip() == str(self.process.pid)
            if is_ours and command.startswith(b"cofferdam-egress\0"):
                return int(folder.name)
        raise AssertionError("there is no egress worker")


def peak_kib(process):
    """The most memory that it has had."""
    status = pathlib.Path(f"/proc/{process}/status").read_text()
    return int(status.split("VmHWM:", 1)[1].split()[0])


class Site:
    # For a host that is emulated.
    scale = Scale(rounds=20, attempts=5_000, connections=100, mebibytes=8, pushed=8)

    def __init__(self, place, root):
        self.place, self.root = pathlib.Path(place), root
        self.workspace = self.place / "workspace"
        self.workspace.mkdir()
        self.workspace.chmod(0o777)
        self.policy = self.place / "policy.toml"
        self.certificates()
        shutil.copy(guest.__file__, self.workspace / "guest.py")
        settings = self.place / "resolv.conf"
        settings.write_text(f"nameserver {NAME_SERVER}\noptions timeout:2\n")
        subprocess.run(["mount", "--bind", settings, "/etc/resolv.conf"], check=True)
        self.repository()
        os.environ["MIRROR"] = str(self.place / "mirror")
        self.world = World(self.place / "origin.pem", self.place / "origin.key")
        self.failed = 0

    def certificates(self):
        def openssl(*words):
            subprocess.run(["openssl", *words], check=True, cwd=self.place, capture_output=True)

        key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
        openssl("req", "-x509", *key, "-keyout", "root.key", "-out", "root.pem", "-subj", "/CN=Test root", "-days", "2")
        openssl("req", *key, "-keyout", "origin.key", "-out", "origin.csr", "-subj", f"/CN=*.{DOMAIN}")
        (self.place / "san").write_text(f"subjectAltName=DNS:*.{DOMAIN}\n")
        openssl("x509", "-req", "-in", "origin.csr", "-CA", "root.pem", "-CAkey", "root.key", "-CAcreateserial", "-extfile", "san", "-days", "2", "-out", "origin.pem")
        shutil.copy(self.place / "root.pem", self.workspace / guest.CERTIFICATE)

    def repository(self):
        repositories = self.place / "repositories"
        os.environ["REPOSITORIES"] = str(repositories)
        script = """git init -q --bare -b main "$1/project.git" && git init -q -b main first && cd first && echo one > file && git add file &&
            git -c user.name=t -c user.email=t@localhost commit -qm one && git push -q "$1/project.git" main"""
        subprocess.run(["sh", "-c", script, "sh", repositories], check=True, cwd=self.place)

    def check(self, name, check):
        begin = time.monotonic()
        try:
            verdict, outcome = "PASS", check()
        except Exception as error:
            verdict, outcome = "FAIL", f"{type(error).__name__} {error}"
            self.failed += 1
        print(f"== {name}: {verdict} {outcome} ({time.monotonic() - begin:.0f} s there)", flush=True)

    def sandbox(self):
        files = ["--kernel", self.place / "kernel", "--initrd", self.place / "initrd", "--root", self.root]
        share = ["-w", self.workspace, "--policy", self.policy]
        command = ["sudo", "-n", "python3", "guest.py"]
        return Sandbox([self.place / "coffer", "run", *share, *files, "--", *command])


def expect(condition, text):
    if not condition:
        raise AssertionError(text)


def sinks_count(site):
    """The techniques without a sandbox: each has to be noticed, or it shows nothing in a guest."""
    host = Orders([sys.executable, site.workspace / "guest.py"])
    unnoticed, came_up = [], 0
    for name in guest.ATTACKS:
        before = site.world.seen()
        came_up += host.do("attack", name)["came_up"]
        noticed = more(before, site.world.seen())
        if not any(not is_allowed(key) for key in noticed):
            unnoticed.append(name)
    host.end()
    expect(site.world.seen()[LOCAL] > 0, "connections to the host itself are not noticed")
    expect(not unnoticed, f"no sink notices {unnoticed}")
    return f"{len(guest.ATTACKS)} techniques without a sandbox, each noticed, {came_up} came up"


def nothing_else(site, before):
    seen = more(before, site.world.seen())
    out = {key: count for key, count in seen.items() if not is_allowed(key)}
    expect(not out, f"got out: {out}")
    expect(site.world.lost == 0, f"{site.world.lost} packets were not looked at")
    return seen


def attacks(site, sandbox):
    before, came_up = site.world.seen(), []
    names = [*guest.ATTACKS, *guest.ONLY_IN_A_GUEST]
    for name in names:
        if sandbox.do("attack", name)["came_up"]:
            came_up.append(name)
        try:
            nothing_else(site, before)
        except AssertionError as error:
            raise AssertionError(f"{name}: {error}") from None
    expect(not came_up, f"came up: {came_up}")
    return f"{len(names)} techniques, 0 packets, queries, requests and names that policy does not allow"


def allowed(site, sandbox):
    before = site.world.seen()
    said = sandbox.do("allowed")
    expect(said == {"https": True, "http": True}, said)
    seen = nothing_else(site, before)
    expected = [f"query good.{DOMAIN}", f"sni good.{DOMAIN}", f"request plain.{DOMAIN}", f"packet tcp {ORIGINS['good']} 443"]
    expect(all(key in seen for key in expected), f"the sinks did not see {expected}: {seen}")
    return "https and http arrive, and the sinks see it"


def rebinding(site, sandbox):
    before = site.world.seen()
    said = sandbox.do("rebinding", site.scale.rounds)
    seen = nothing_else(site, before)
    asked = seen.get(f"query flip.{DOMAIN}", 0)
    expect(said["came_up"] >= 1 and asked > 1, f"the name did not flip: {said}, {asked} queries")
    expect(said["came_up"] < site.scale.rounds, f"every round came up: {said}")
    return f"{site.scale.rounds} rounds, {said['came_up']} to the public address, {asked} queries, none dialled elsewhere"


def flood(site, sandbox):
    before, seen = sandbox.egress_kib(), site.world.seen()
    begin = time.monotonic()
    said = sandbox.do("flood", site.scale.attempts)
    took = time.monotonic() - begin
    nothing_else(site, seen)
    after = sandbox.egress_kib()
    expect(after < EGRESS_LIMIT_KIB, f"{before} -> {after} KiB")
    still = sandbox.do("allowed")
    expect(said["attempts"] >= site.scale.attempts * 9 // 10 and all(still.values()), f"{said} {still}")
    return f"{said['attempts']} attempts in {took:.0f} s, peak of the egress worker {before} -> {after} KiB, the network works"


def parallel(site, sandbox):
    before = site.world.seen()
    count = site.scale.connections
    said = sandbox.do("parallel", count)
    nothing_else(site, before)
    expect(said["answered"] == count, said)
    return f"{count} connections at once, all answered"


def transfer(site, sandbox):
    before = site.world.seen()
    said = sandbox.do("transfer", site.scale.mebibytes)
    nothing_else(site, before)
    expect(said["down"] and said["up"], said)
    return f"{site.scale.mebibytes} MiB down in {said['seconds'][0]} s and up in {said['seconds'][1]} s, by curl over https"


def websocket(site, sandbox):
    before = site.world.seen()
    said = sandbox.do("websocket", 50)
    nothing_else(site, before)
    expect(said == {"switched": True, "echoed": 50}, said)
    return "50 messages sent and sent back"


def events(site, sandbox):
    before = site.world.seen()
    said = sandbox.do("events")
    nothing_else(site, before)
    # 1.6 s lie between the first and the last: they must not come all at once.
    expect(said["events"] == 5 and said["seconds"] > 0.8, said)
    return f"5 events, over {said['seconds']:.1f} s"


def git(site, sandbox):
    before = site.world.seen()
    said = sandbox.do("git", site.scale.pushed)
    nothing_else(site, before)
    expect(said["said"] == "same", said)
    return f"clone, push of {site.scale.pushed} MiB, fetch"


def crash(sandbox):
    """Ends the egress worker as a crash does; `coffer` starts another."""
    before = sandbox.egress_worker()
    os.kill(before, signal.SIGKILL)
    for _ in range(60):
        time.sleep(0.5)
        try:
            if sandbox.egress_worker() != before and sandbox.do("resolves", f"good.{DOMAIN}")["resolves"]:
                return
        except AssertionError:
            pass
    raise AssertionError("there is no other egress worker")


def reload(site, sandbox):
    other = site.place / "other.toml"
    other.write_text(RELOADED)
    os.rename(other, site.policy)
    # It decides when a name of it resolves in the guest; nothing is dialled for that.
    for _ in range(60):
        if sandbox.do("resolves", f"x.later.{DOMAIN}")["resolves"]:
            return
        time.sleep(0.5)
    raise AssertionError("the other policy does not decide")


def main():
    site = Site(*sys.argv[1:])
    site.check("sinks count", lambda: sinks_count(site))
    site.policy.write_text(POLICY)
    sandbox = site.sandbox()
    site.check("allowed flows", lambda: allowed(site, sandbox))
    site.check("attacks, fresh", lambda: attacks(site, sandbox))
    site.check("rebinding", lambda: rebinding(site, sandbox))
    site.check("transfer", lambda: transfer(site, sandbox))
    site.check("git over https", lambda: git(site, sandbox))
    site.check("websocket", lambda: websocket(site, sandbox))
    site.check("server-sent events", lambda: events(site, sandbox))
    site.check("parallel connections", lambda: parallel(site, sandbox))

    def reloaded():
        reload(site, sandbox)
        return attacks(site, sandbox)

    site.check("attacks, policy reloaded", reloaded)

    def crashed():
        crash(sandbox)
        return attacks(site, sandbox)

    site.check("attacks, egress worker killed", crashed)
    site.check("allowed flows, egress worker killed", lambda: allowed(site, sandbox))
    sandbox.end()
    again = site.sandbox()
    site.check("attacks, sandbox restarted", lambda: attacks(site, again))
    site.check("allowed flows, sandbox restarted", lambda: allowed(site, again))
    # Last: an emulated host has stood still in it.
    site.check("flood", lambda: flood(site, again))
    again.end()
    sys.exit(1 if site.failed else 0)


if __name__ == "__main__":
    main()
