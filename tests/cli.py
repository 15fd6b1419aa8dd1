#!/usr/bin/env python3
"""What a person meets at the command line: each row is a command, its exit code and words that its answer holds.

    python3 cli.py SOURCE_DIR WMTPC

Runs in a fresh folder, into which SOURCE_DIR's graphs, configs and data are linked. A word that starts with ! must be absent.
"""
import os, re, subprocess, sys, tempfile

FILES = {
    "mine.wg": "graph mine extends baseline\nhyper most : f32 = 3.0 in [1, inf)\nweight = clip(stop_grad(nll), 0.0, most)\n",
    "messy.wg": "graph messy extends baseline\nweight   =  clip( stop_grad( nll ),0.0,3.0 )\n",
    "broken.wg": "graph broken extends baseline\nweight = clip(nll, 0.0\n",
}
ROWS = [
    ("check mine.wg messy.wg", 0, ["mine.wg: no errors", "messy.wg: no errors"]),
    ("check graphs/verifiable.wg -c configs/6.7b.yaml", 0, ["no errors"]),
    ("fmt messy.wg -o -", 0, ["clip(stop_grad(nll), 0.0, 3.0)"]),
    ("fmt messy.wg broken.wg", 1, ["E003", "broken.wg:2", "!formatted"]),
    ("fmt messy.wg mine.wg", 0, ["messy.wg: formatted", "!mine.wg: formatted"]),
    ("fmt messy.wg", 0, ["!formatted"]),
    ("fmt messy.wg mine.wg -o out.wg", 2, ["takes one file"]),
    ("fmt none.wg", 66, ["none.wg"]),
    ("graph graphs/verifiable.wg -c configs/micro.yaml", 0,
     ["<B>tail</B> &#215; 4", "td_error(stop_grad(V), reward, resp, gamma)", "<B>loss ce</B>", "!weight_mean"]),
    ("graph graphs/verifiable.wg -c configs/micro.yaml -v", 0, ["weight_mean"]),
    ("graph graphs/rho1.wg -c configs/micro.yaml", 0, ["<B>ref</B>, frozen", "style=dashed"]),
    ("run mine.wg extra.wg -c configs/micro.yaml", 2, ["extra.wg", "one argument too many"]),
]


def main():
    source, wmtpc = os.path.abspath(sys.argv[1]), os.path.abspath(sys.argv[2])
    bad = 0
    with tempfile.TemporaryDirectory(prefix="wm_cli_") as folder:
        for name in ("graphs", "configs", "data"):
            os.symlink(os.path.join(source, name), os.path.join(folder, name))
        for name, text in FILES.items():
            with open(os.path.join(folder, name), "w", encoding="utf-8") as f:
                f.write(text)
        for row, code, words in ROWS:
            r = subprocess.run([wmtpc] + row.split(), cwd=folder, capture_output=True, text=True)
            text = re.sub(r"\s+", " ", r.stdout + r.stderr)
            wrong = [w for w in words if (w[1:] in text if w[0] == "!" else w not in text)]
            if r.returncode != code or wrong:
                print(f"wmtpc {row}: exit {r.returncode}, {code} expected; {wrong}\n{r.stdout}{r.stderr}")
                bad += 1
    print(f"{len(ROWS) - bad} of {len(ROWS)} answers are as expected")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
