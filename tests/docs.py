#!/usr/bin/env python3
"""Runs the examples of a documentation page, in order, in a fresh folder.

    python3 docs.py PAGE.md SOURCE_DIR WMTPC

A block opened by ```sh is run by sh -e and must exit with 0, or with N in ```sh exit=N; ```wg file=NAME is written to that
file. `make ..` lines are left out: the build is there. SOURCE_DIR's graphs, configs and data are linked into the folder,
WMTPC stands at build/wmtpc.
"""
import os, re, subprocess, sys, tempfile


def blocks(text):
    for m in re.finditer(r"^```(\w+)([^\n]*)\n(.*?)^```$", text, re.S | re.M):
        yield m.group(1), dict(x.split("=") for x in m.group(2).split()), m.group(3), text[:m.start()].count("\n") + 1


def main():
    page, source, wmtpc = sys.argv[1:4]
    folder = tempfile.mkdtemp(prefix="wm_docs_")
    os.mkdir(os.path.join(folder, "build"))
    os.symlink(os.path.abspath(wmtpc), os.path.join(folder, "build", "wmtpc"))
    for name in ("graphs", "configs", "data"):
        os.symlink(os.path.join(os.path.abspath(source), name), os.path.join(folder, name))
    ran = 0
    for kind, opts, body, line in blocks(open(page, encoding="utf-8").read()):
        if kind == "wg" and "file" in opts:
            open(os.path.join(folder, opts["file"]), "w", encoding="utf-8").write(body)
        if kind != "sh":
            continue
        body = "\n".join(x for x in body.split("\n") if not x.startswith("make "))
        want = int(opts.get("exit", 0))
        r = subprocess.run(["sh", "-e", "-c", body], cwd=folder, capture_output=True, text=True)
        if r.returncode != want:
            print(f"{page}:{line}: exit {r.returncode}, {want} expected\n{body}{r.stdout}{r.stderr}")
            return 1
        ran += 1
    print(f"{page}: {ran} examples run")
    subprocess.run(["rm", "-rf", folder])
    return 0 if ran else 1


if __name__ == "__main__":
    sys.exit(main())
