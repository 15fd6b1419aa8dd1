#!/usr/bin/env python3
"""Measures wmtpc and PyTorch in turns and writes bench/results/HOST.json (one JSON object a line) and HOST.md (tables).

    bench/run.sh [--model tiny] [--stages baseline,verifiable,rho1] [--pairs 3] [--threads 2] [--steps 12] [--compile]

A pair is one run of each, right after one another; only ratios within a pair are compared, so a machine that drifts
does no harm. Both are pinned to the same processors. Tokens of a step are counted as in torch_train.py: batch x seq.
The processor time of a step is taken too: it hardly depends on what else runs.
"""
import argparse, json, os, platform, re, shutil, statistics, subprocess, sys, tempfile, threading, time

SHAPE = {"micro": (4, 64), "tiny": (8, 256), "small": (4, 512)}  # batch, seq of configs/MODEL.yaml
WARMUP = 3


def child(cmd, env=None, on_line=None):
    """Runs cmd; returns (exit status, stdout, seconds, user + system seconds, peak RSS in MB)."""
    start = time.time()
    p = subprocess.Popen(cmd, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env)
    log = []

    def read():
        for line in p.stderr:
            log.append(line)
            if on_line:
                on_line(line, time.time() - start)
    t = threading.Thread(target=read)
    t.start()
    out = p.stdout.read()
    _, status, use = os.wait4(p.pid, 0)
    p.returncode = os.waitstatus_to_exitcode(status)
    t.join()
    if p.returncode:
        sys.exit(f"{' '.join(cmd)}: exit status {p.returncode}\n{''.join(log)[-2000:]}")
    return out, time.time() - start, use.ru_utime + use.ru_stime, use.ru_maxrss / 1024


class Bench:
    def __init__(self, a):
        self.a = a
        self.dir = tempfile.mkdtemp(prefix="wmtpc-bench-")
        self.data = self.dir + "/tokens.jsonl"
        batch, seq = SHAPE[a.model]
        self.tokens = batch * seq
        samples = batch * (a.steps + WARMUP + 2)
        subprocess.run([sys.executable, "bench/make_tokens.py", self.data, str(samples), str(seq)], check=True)
        self.pin = ["taskset", "-c", a.cpus] if a.cpus else []

    def wmtpc(self, stage, steps, cache):
        run = self.dir + "/run"
        shutil.rmtree(run, ignore_errors=True)
        first = []

        def seen(line, at):
            if line.startswith("step 1/"):
                first.append(at)
        cmd = self.pin + [self.a.wmtpc, "run", f"graphs/{stage}.wg", "-c", f"configs/{self.a.model}.yaml",
                          f"dataset.train={self.data}", "dataset.validation=", "training.log_interval=1",
                          "training.validate_every=0", "checkpoint.save_best=false", "checkpoint.save_checkpoint_every=0",
                          f"checkpoint.save_dir={run}", f"runtime.threads={self.a.threads}", "--steps", str(steps)]
        _, wall, cpu, rss = child(cmd, dict(os.environ, WMTPC_CACHE=cache), seen)
        with open(run + "/metrics.jsonl") as f:
            rows = [json.loads(x) for x in f]
        took = [r["step_s"] for r in rows if "step_s" in r]
        med = statistics.median(took[WARMUP:] or took)
        return {"who": "wmtpc", "stage": stage, "tokens_per_s": self.tokens / med, "step_ms": med * 1e3,
                "first_step_s": first[0], "cpu_s": cpu, "wall_s": wall, "peak_rss_mb": rss, "loss": rows[-1].get("train.loss")}

    def torch(self, stage, steps, compiled=False):
        cmd = self.pin + [self.a.torch_python, "bench/torch_train.py", "--model", self.a.model, "--stage", stage,
                          "--threads", str(self.a.threads), "--warmup", str(min(WARMUP, steps - 1)),
                          "--steps", str(max(steps - WARMUP, 1))] + (["--compile"] if compiled else [])
        out, wall, cpu, rss = child(cmd)
        r = json.loads(out.strip().splitlines()[-1])
        return {"who": "torch.compile" if compiled else "torch", "stage": stage, "tokens_per_s": r["tokens_per_s"],
                "step_ms": r["step_ms"], "first_step_s": r["first_step_s"], "cpu_s": cpu, "wall_s": wall, "peak_rss_mb": rss,
                "loss": r["loss"], "torch": r["torch"]}

    def cpu_of_step(self, run, few=4):
        """Processor seconds of one step: two runs of different length."""
        n = self.a.steps + WARMUP
        return (run(n)["cpu_s"] - run(few)["cpu_s"]) / (n - few)

    def small_times(self):
        rows = []
        for what, cmd in [("check baseline", ["check", "graphs/baseline.wg"]), ("check rho1", ["check", "graphs/rho1.wg"]),
                          ("plan 6.7b baseline", ["plan", "graphs/baseline.wg", "-c", "configs/6.7b.yaml"])]:
            took = [child([self.a.wmtpc] + cmd)[1] for _ in range(5)]
            rows.append({"who": "wmtpc", "what": what, "seconds": statistics.median(took)})
        return rows


def host():
    with open("/proc/cpuinfo") as f:
        m = re.search(r"model name\s*: (.*)", f.read())
    name = m.group(1).strip() if m else platform.machine()
    slug = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
    return name, f"{slug}-{os.cpu_count()}cores"


def span(x, digits=2):
    return f"{statistics.median(x):.{digits}f} ({min(x):.{digits}f}-{max(x):.{digits}f})"


def table(rows, stages, name, a):
    out = [f"{name}, {a.threads} threads, model `{a.model}`, f32; {a.pairs} pairs; median (range)", "",
           "| stage | beside | tokens/s: wmtpc | PyTorch | ratio | peak MB: wmtpc | PyTorch | ratio |", "|---|---|---|---|---|---|---|---|"]
    for s in stages:
        for other in ("torch", "torch.compile"):
            pairs = [r for r in rows if r.get("stage") == s and r.get("beside") == other]
            ours, theirs = [r for r in pairs if r["who"] == "wmtpc"], [r for r in pairs if r["who"] == other]
            if not ours:
                continue
            ratio = [x["tokens_per_s"] / y["tokens_per_s"] for x, y in zip(ours, theirs)]
            mem = [x["peak_rss_mb"] / y["peak_rss_mb"] for x, y in zip(ours, theirs)]
            med = lambda rs, k: statistics.median(r[k] for r in rs)
            out.append(f"| {s} | {other} | {med(ours, 'tokens_per_s'):.0f} | {med(theirs, 'tokens_per_s'):.0f} | {span(ratio)} "
                       f"| {med(ours, 'peak_rss_mb'):.0f} | {med(theirs, 'peak_rss_mb'):.0f} | {span(mem)} |")
    out += ["", "| first finished step, seconds from process start | cold cache | warm cache | of it the step | PyTorch |", "|---|---|---|---|---|"]
    for s in stages:
        cold = [r["first_step_s"] for r in rows if r.get("stage") == s and r.get("cache") == "cold"]
        warm = [r for r in rows if r.get("stage") == s and r.get("beside") == "torch" and r["who"] == "wmtpc"]
        them = [r["first_step_s"] for r in rows if r.get("stage") == s and r.get("beside") == "torch" and r["who"] == "torch"]
        if cold and warm:
            out.append(f"| {s} | {span(cold)} | {span([r['first_step_s'] for r in warm])} "
                       f"| {statistics.median(r['step_ms'] for r in warm) / 1e3:.2f} | {span(them)} |")
    small = [r for r in rows if "what" in r]
    if small:
        out += ["", "| command | ms |", "|---|---|"] + [f"| `wmtpc {r['what']}` | {r['seconds'] * 1e3:.0f} |" for r in small]
    cpu = [r for r in rows if "cpu_step_s" in r]
    if cpu:
        out += ["", "| processor seconds of a step, one thread | wmtpc | PyTorch | ratio |", "|---|---|---|---|"]
        out += [f"| {r['stage']} | {r['cpu_step_s'][0]:.2f} | {r['cpu_step_s'][1]:.2f} | {r['cpu_step_s'][1] / r['cpu_step_s'][0]:.2f} |" for r in cpu]
    return "\n".join(out) + "\n"


def main():
    ap = argparse.ArgumentParser()
    ap.add_argument("--model", default="tiny", choices=SHAPE)
    ap.add_argument("--stages", default="baseline,verifiable,rho1")
    ap.add_argument("--pairs", type=int, default=3)
    ap.add_argument("--threads", type=int, default=2)
    ap.add_argument("--steps", type=int, default=12)
    ap.add_argument("--cpus", default="", help="processors for both (taskset), for example 0,1")
    ap.add_argument("--compile", action="store_true", help="pairs with torch.compile too")
    ap.add_argument("--cpu", action="store_true", help="processor seconds of a step on one thread, instead of pairs: for a machine that is busy")
    ap.add_argument("--torch-python", required=True)
    ap.add_argument("--wmtpc", default="build/wmtpc")
    ap.add_argument("--out", default="bench/results")
    a = ap.parse_args()
    stages = a.stages.split(",")
    if a.cpu:
        a.threads = 1
    b = Bench(a)
    name, slug = host()
    os.makedirs(a.out, exist_ok=True)
    path = f"{a.out}/{slug}{'-cpu' if a.cpu else ''}-{a.model}"
    rows, n = [], a.steps + WARMUP

    def keep(row):
        row["load"] = os.getloadavg()[0]
        rows.append(row)
        with open(path + ".json", "a" if len(rows) > 1 else "w") as f:
            f.write(json.dumps(row) + "\n")
        print(json.dumps(row), flush=True)

    keep({"host": name, "cores": os.cpu_count(), "kernel": platform.release(), "model": a.model, "threads": a.threads, "warmup": WARMUP, "steps": a.steps})
    try:
        for s in stages:
            for i in range(a.pairs if not a.cpu else 1):
                cold = tempfile.mkdtemp(prefix="cold-", dir=b.dir)
                keep(dict(b.wmtpc(s, 1, cold), cache="cold"))
                cache = cold
            if a.cpu:
                ours, theirs = b.cpu_of_step(lambda k: b.wmtpc(s, k, cache)), b.cpu_of_step(lambda k: b.torch(s, k))
                keep({"stage": s, "cpu_step_s": [ours, theirs]})
                continue
            for other in ("torch", "torch.compile") if a.compile else ("torch",):
                for i in range(a.pairs):
                    keep(dict(b.wmtpc(s, n, cache), beside=other, pair=i))
                    keep(dict(b.torch(s, n, other != "torch"), beside=other, pair=i))
        for r in b.small_times():
            keep(r)
        text = table(rows, stages, name, a)
        with open(path + ".md", "w") as f:
            f.write(text)
        print(text)
    finally:
        shutil.rmtree(b.dir, ignore_errors=True)


if __name__ == "__main__":
    main()
