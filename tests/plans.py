#!/usr/bin/env python3
"""One plan, however it is asked for: every shipped graph is compiled in two folders (the same text), planned from the graph and
from the compiled plan (the same answer); of two graphs each stage that was dumped leads to the same end when `opt` goes on from it.

    python3 plans.py SOURCE_DIR WMTPC
"""
import glob, os, shutil, subprocess, sys, tempfile

GRAPHS = ["baseline", "critic", "critic_pairwise", "rho1", "verifiable", "verifiable_ema", "examples/entropy", "examples/focal",
          "examples/grpo", "examples/parallel", "examples/qk", "examples/random_matched", "examples/shuffled"]
RESTARTED = ["rho1", "verifiable"]
# `fuse` takes what it leaves behind and may group it anew: its own dump leads to an equal program, not to the same text.
NOT_THE_SAME_TEXT = "fuse"


def call(wmtpc, row, cwd):
    r = subprocess.run([wmtpc] + row, cwd=cwd, capture_output=True, text=True)
    if r.returncode != 0:
        sys.exit(f"wmtpc {' '.join(row)}: exit {r.returncode}\n{r.stdout}{r.stderr}")
    return r.stdout


def read(*path):
    with open(os.path.join(*path), encoding="utf-8") as f:
        return f.read()


def main():
    source, wmtpc = os.path.abspath(sys.argv[1]), os.path.abspath(sys.argv[2])
    wrong = []
    with tempfile.TemporaryDirectory(prefix="wm_plans_") as top:
        folders = [os.path.join(top, "one"), os.path.join(top, "another", "two")]
        for folder in folders:
            os.makedirs(folder)
            for name in ("graphs", "configs", "data"):
                os.symlink(os.path.join(source, name), os.path.join(folder, name))
        for graph in GRAPHS:
            row = [f"graphs/{graph}.wg", "-c", "configs/micro.yaml"]
            for folder in folders:
                call(wmtpc, ["compile"] + row + ["-o", "F.plan"], folder)
            if read(folders[0], "F.plan") != read(folders[1], "F.plan"):
                wrong.append(f"{graph}: two plans from two folders")
            if call(wmtpc, ["plan"] + row, folders[0]) != call(wmtpc, ["plan", "F.plan"], folders[0]):
                wrong.append(f"{graph}: another plan from the graph than from the compiled plan")
        for graph in RESTARTED:
            dump = os.path.join(top, "dump")
            call(wmtpc, ["plan", f"graphs/{graph}.wg", "-c", "configs/micro.yaml", f"--dump-dir={dump}"], folders[0])
            for program in ("[0-9]", "val-"):
                stages = sorted(glob.glob(os.path.join(dump, program + "*.wir")))
                for stage in stages:
                    call(wmtpc, ["opt", stage, "-o", "again.wir"], top)
                    if NOT_THE_SAME_TEXT not in os.path.basename(stage) and read(top, "again.wir") != read(stages[-1]):
                        wrong.append(f"{graph}: opt goes on from {os.path.basename(stage)} to another end")
                if not stages:
                    wrong.append(f"{graph}: nothing was dumped")
            shutil.rmtree(dump)
    print("\n".join(wrong) or "every plan is as expected")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
