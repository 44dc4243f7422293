"""A stand-in for a coding agent: it runs the tests of the project around it, finds the functions that
the failures mention, tries small changes in them until the tests pass, and commits.

It knows neither the project nor its bugs. It comes by standard input, so nothing of it is in the
workspace. At the end it looks around for what it should not reach (its argument: a file beside the
workspace) and says what it found.
"""

import errno
import json
import os
import re
import socket
import subprocess
import sys

# What to try in place of an operator.
CHANGES = {"==": ["!="], ">": [">="], "<": ["<="], ">=": [">"], "<=": ["<"], "+": ["-"], "-": ["+"]}
OPERATOR = re.compile(r"(?<=\s)(==|>=|<=|>|<|\+|-)(?=\s)")
FUNCTION = re.compile(r"^(?:def |bool |int |void )(\w+)\(.*$", re.MULTILINE)
IDENTITY = ["-c", "user.name=Agent", "-c", "user.email=agent@sandbox.example"]


def say(text):
    print(f"agent: {text}", flush=True)


def run(*command):
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    return done.returncode, done.stdout


def failing_tests():
    """The make targets that fail, each with its output."""
    failing = {}
    for target in "test-python", "test-c":
        status, output = run("make", target)
        if status:
            failing[target] = output
    return failing


def functions():
    """Where each function is: its file, and the start and end of its text there."""
    found = {}
    tracked = run("git", "ls-files", "*.py", "*.c")[1].split()
    for path in (path for path in tracked if not path.startswith("tests/")):
        text = open(path).read()
        heads = list(FUNCTION.finditer(text))
        ends = [head.start() for head in heads[1:]] + [len(text)]
        found.update({head[1]: (path, head.end(), end) for head, end in zip(heads, ends)})
    return found


def suspects(output):
    """The functions that the failing lines mention."""
    failing = [line for line in output.splitlines() if "assert" in line.lower()]
    known = functions()
    words = [word for line in failing for word in re.findall(r"\w+", line)]
    return {word: known[word] for word in words if word in known}


def candidates(text, start, end):
    """The text with one operator between start and end changed, and the line that changed."""
    for found in OPERATOR.finditer(text, start, end):
        for change in CHANGES[found[0]]:
            changed = text[: found.start()] + change + text[found.end() :]
            first = text.rfind("\n", 0, found.start()) + 1
            yield changed, changed[first : changed.index("\n", first)].strip()


def mend(target, output):
    for name, (path, start, end) in suspects(output).items():
        say(f"{target} fails in {name} ({path})")
        text = open(path).read()
        for changed, line in candidates(text, start, end):
            open(path, "w").write(changed)
            if run("make", target)[0] == 0:
                say(f"{target} passes with: {line}")
                return name
        open(path, "w").write(text)
    sys.exit(f"agent: {target} cannot be mended")


def look_around(beside):
    def outcome(attempt):
        try:
            attempt()
            return "reached"
        except OSError as error:
            return errno.errorcode.get(error.errno, str(error))

    return {
        "kernel": os.uname().release,
        "boot": open("/proc/sys/kernel/random/boot_id").read().strip(),
        "beside": outcome(lambda: open(beside).read()),
        "above": outcome(lambda: open(os.path.join("..", os.path.basename(beside))).read()),
        "interfaces": sorted(os.listdir("/sys/class/net")),
        "connect": outcome(lambda: socket.create_connection(("1.1.1.1", 443), 5)),
    }


failing = failing_tests()
say(f"{len(failing)} of 2 suites fail")
mended = [mend(target, output) for target, output in failing.items()]
left = failing_tests()
say(f"{len(left)} of 2 suites fail now")
if left or not mended:
    sys.exit(1)
status, output = run("git", *IDENTITY, "commit", "-a", "-m", "Mend " + " and ".join(mended))
say(output.splitlines()[0])
if status == 0:
    print("found:", json.dumps(look_around(sys.argv[1])), flush=True)
sys.exit(status)
