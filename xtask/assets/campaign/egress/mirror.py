"""A package of each of apt, pip, npm and cargo, made here, as static files behind an origin; and how each program fetches it."""

import base64
import gzip
import hashlib
import io
import json
import os
import pathlib
import subprocess
import tarfile
import zipfile

NAME, VERSION = "tinyworld", "1.0.0"


def make(folder):
    """The files, below `folder`."""
    apt(folder / "apt")
    pip(folder / "pip")
    npm(folder / "npm")
    cargo(folder / "cargo")


def write(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())


def archive(files):
    """A tar of texts, compressed."""
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w") as tar:
        for name, text in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(text.encode())
            tar.addfile(entry, io.BytesIO(text.encode()))
    return gzip.compress(raw.getvalue(), mtime=0)


def apt(folder):
    """A flat repository (sources.list(5)); it is not signed."""
    control = f"Package: {NAME}\nVersion: {VERSION}\nArchitecture: all\nMaintainer: nobody <nobody@localhost>\nDescription: nothing\n"
    tree = folder / "tree"
    write(tree / "DEBIAN/control", control)
    write(tree / f"usr/share/{NAME}", "apt\n")
    file = folder / f"{NAME}.deb"
    subprocess.run(["dpkg-deb", "--build", "--root-owner-group", tree, file], check=True, capture_output=True)
    content = file.read_bytes()
    write(folder / "Packages", f"{control}Filename: ./{file.name}\nSize: {len(content)}\nSHA256: {hashlib.sha256(content).hexdigest()}\n")


def pip(folder):
    """A simple index (PEP 503) and a wheel."""
    about = f"{NAME}-{VERSION}.dist-info"
    wheel = io.BytesIO()
    with zipfile.ZipFile(wheel, "w") as files:
        files.writestr(f"{NAME}.py", "said = 'pip'\n")
        files.writestr(f"{about}/METADATA", f"Metadata-Version: 2.1\nName: {NAME}\nVersion: {VERSION}\n")
        files.writestr(f"{about}/WHEEL", "Wheel-Version: 1.0\nGenerator: none\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        files.writestr(f"{about}/RECORD", "")
    file = f"{NAME}-{VERSION}-py3-none-any.whl"
    write(folder / file, wheel.getvalue())
    digest = hashlib.sha256(wheel.getvalue()).hexdigest()
    write(folder / f"simple/{NAME}/index.html", f'<!DOCTYPE html><a href="../../{file}#sha256={digest}">{file}</a>')


def npm(folder):
    about = {"name": NAME, "version": VERSION, "main": "index.js"}
    package = archive({"package/package.json": json.dumps(about), "package/index.js": "module.exports = 'npm'\n"})
    write(folder / f"{NAME}.tgz", package)
    integrity = "sha512-" + base64.b64encode(hashlib.sha512(package).digest()).decode()
    # The address of the tarball is put in where it is asked for: `npm` takes no relative one.
    dist = {"tarball": f"@ORIGIN@/mirror/npm/{NAME}.tgz", "integrity": integrity}
    about["dist"] = dist
    write(folder / "document" / NAME, json.dumps({"name": NAME, "dist-tags": {"latest": VERSION}, "versions": {VERSION: about}}))


def cargo(folder):
    """A sparse registry."""
    manifest = f'[package]\nname = "{NAME}"\nversion = "{VERSION}"\nedition = "2021"\n'
    begin = f"{NAME}-{VERSION}"
    crate = archive({f"{begin}/Cargo.toml": manifest, f"{begin}/src/lib.rs": "//! cargo\n"})
    write(folder / f"dl/{NAME}/{VERSION}/download", crate)
    write(folder / "index/config.json", '{"dl": "@ORIGIN@/mirror/cargo/dl"}')
    line = {"name": NAME, "vers": VERSION, "deps": [], "cksum": hashlib.sha256(crate).hexdigest(), "features": {}, "yanked": False}
    write(folder / f"index/{NAME[:2]}/{NAME[2:4]}/{NAME}", json.dumps(line) + "\n")


def commands(place, origin, certificate):
    """For each program: what fetches the package from `origin` into `place`, and the file that is there then."""
    place = pathlib.Path(place)
    write(place / "apt/sources.list", f"deb [trusted=yes] {origin}/mirror/apt ./\n")
    for folder in ("apt/lists/partial", "apt/cache/archives/partial", "apt/parts", "npm"):
        (place / folder).mkdir(parents=True)
    for file in ("apt/status", "npm-user", "npm-global"):
        write(place / file, "")
    state = {"Dir::Etc::sourcelist": "sources.list", "Dir::Etc::sourceparts": "parts", "Dir::State::lists": "lists", "Dir::State::status": "status", "Dir::Cache": "cache"}
    options = [word for name, to in state.items() for word in ("-o", f"{name}={place / 'apt' / to}")]
    options += ["-o", "APT::Sandbox::User=root", "-o", f"Acquire::https::CaInfo={certificate}", "-o", "Acquire::Retries=0", "-o", "Acquire::http::Proxy=DIRECT", "-o", "Acquire::https::Proxy=DIRECT"]
    apt = " ".join(["apt-get", *options])
    manifest = f'[package]\nname = "x"\nversion = "1.0.0"\nedition = "2021"\n[dependencies]\n{NAME} = {{ version = "1", registry = "world" }}\n'
    write(place / "cargo/Cargo.toml", manifest)
    write(place / "cargo/src/lib.rs", "")
    write(place / "cargo/.cargo/config.toml", f'[registries.world]\nindex = "sparse+{origin}/mirror/cargo/index/"\n[net]\nretry = 0\n')
    home = place / "cargo-home"
    return {
        "apt": (f"cd {place}/apt && {apt} update && {apt} download {NAME}", place / f"apt/{NAME}_{VERSION}_all.deb"),
        "pip": (
            f"/usr/bin/python3 -m pip --isolated download --retries 0 --no-deps --cert {certificate} --index-url {origin}/mirror/pip/simple/ --dest {place}/pip {NAME}",
            place / f"pip/{NAME}-{VERSION}-py3-none-any.whl",
        ),
        "npm": (
            f"cd {place}/npm && npm install --userconfig {place}/npm-user --globalconfig {place}/npm-global --cache {place}/npm-cache --fetch-retries 0 --no-audit --no-fund"
            f" --cafile {certificate} --registry {origin}/mirror/npm/document/ {NAME}",
            place / f"npm/node_modules/{NAME}/index.js",
        ),
        "cargo": (
            f"cd {place}/cargo && CARGO_HOME={home} CARGO_HTTP_CAINFO={certificate} CARGO_HTTP_PROXY= cargo fetch && ls -d {home}/registry/src/*/{NAME}-{VERSION} && touch {place}/cargo/fetched",
            place / "cargo/fetched",
        ),
    }


def fetch(run, place, origin, certificate):
    """Which of the programs got its package, each with what it said."""
    got = {}
    for name, (command, file) in commands(place, origin, certificate).items():
        # Only what a program needs of this environment: it has addresses of mirrors and proxies of its own.
        kept = {key: os.environ[key] for key in ("PATH", "HOME", "RUSTUP_HOME") if key in os.environ}
        done = run(["sh", "-c", command], capture_output=True, text=True, timeout=120, env=kept)
        got[name] = (file.exists(), done.stdout[-300:] + done.stderr[-300:])
    return got
