#!/usr/bin/env python3
"""What a person meets at the command line: each row is a command, its exit code and words that its answer holds.

    python3 cli.py SOURCE_DIR WMTPC

Runs in a fresh folder, into which SOURCE_DIR's graphs, configs and data are linked. A word that starts with ! must be absent.
"""
import os, re, subprocess, sys, tempfile

FILES = {
    "mine.wg": "graph mine extends baseline\nhyper most : f32 = 3.0 in [1, inf)\nweight = clip(stop_grad(nll), 0.0, most)\n",
    "messy.wg": "graph messy extends baseline\nweight   =  clip( stop_grad( nll ),0.0,3.0 )\n",
    "field.wg": "graph field extends baseline\ninput reward : f32[batch] from \"is_corect\"\nweight = clip(reward, 0.1, 1)\n",
    "bad.yaml": "models: {policy: {hidden: 64, n_layers: 4, n_heads: 4, ffn: 172, vocab: 512}}\ndataset: {train: none.jsonl}\n",
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
    ("check mine.wg -W W061", 0, ["W061", "in the call of `mtp_mean`"]),
    ("check mine.wg norm=micro -W W068", 0, ["W068", "!W061"]),
    ("check mine.wg -W W068 -W error", 0, ["!W068"]),
    ("check mine.wg norm=micro -W W068 -W error", 1, ["error[W068]"]),
    ("check mine.wg -W W999", 2, ["W999"]),
    ("run field.wg -c configs/micro.yaml checkpoint.save_dir=runs/a", 1,
     ["E062", "data/train.jsonl:", "did you mean \"is_correct\"?", "the graph reads it here", "input reward : f32[batch]"]),
    ("run mine.wg -c configs/micro.yaml dataset.train=none.jsonl", 66, ["none.jsonl: No such file", "command line:1"]),
    ("run mine.wg -c bad.yaml", 66, ["none.jsonl: No such file", "bad.yaml:2"]),
    ("run mine.wg -c configs/micro.yaml models.policy.path=none", 66, ["none: No such file", "command line:1"]),
    ("run mine.wg -c configs/micro.yaml models.polcy.path=none", 1, ["C002", "did you mean `policy`?"]),
    ("run mine.wg -c configs/micro.yaml checkpoint.save_dir=mine.wg", 74, ["a directory is needed", "command line:1"]),
    ("run mine.wg -c configs/micro.yaml most=0.1", 1, ["`most` is 0.1, outside [1, inf) (from the command line)"]),
    ("run mine.wg -c configs/micro.yaml zzzzz=1", 1, ["`zzzzz`", "wmtpc help mine.wg"]),
    ("run mine.wg", 1, ["`dataset.train` is not set", "-c configs/micro.yaml"]),
    ("eval mine.wg", 2, ["takes the text of a graph", "--dump-dir"]),
    ("show nowhere", 66, ["nowhere/metrics.jsonl", "the directory of a run"]),
    ("test mine.wg", 0, ["mine.wg has no tests"]),
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
