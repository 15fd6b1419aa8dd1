#!/usr/bin/env python3
"""Whole runs of the program: the same bits twice, stop and resume at every step, signals, plans, exit codes.

    python3 e2e.py WMTPC SOURCE_DIR [NAME ..]          each test is a function below; prints one line for each

Standard library only. Every test works in its own folder with a tiny model on the sample data.
"""
import json, math, os, shutil, signal, subprocess, sys, tempfile, time

WMTPC, SOURCE = os.path.abspath(sys.argv[1]), os.path.abspath(sys.argv[2])
CONFIG = """
models:
  policy: {hidden: 32, n_layers: 3, n_heads: 2, ffn: 48, vocab: 300, n_future_tokens: 2}
  ref: {hidden: 32, n_layers: 1, n_heads: 2, ffn: 48, vocab: 300}
dataset: {train: SRC/data/train.jsonl, validation: SRC/data/valid.jsonl, max_length: 96, template: plain}
data_sampling: {n_samples: 22}
training: {n_epochs: 2, batch_size: 2, micro_batches: 3, log_interval: 1, validate_every: 0.5}
checkpoint: {save_checkpoint_every: 0.5, save_total_limit: 3}
experiment: {name: t}
"""


def run(args, cwd, env=None, timeout=300):
    e = dict(os.environ, **(env or {}))
    return subprocess.run([WMTPC] + args, cwd=cwd, capture_output=True, text=True, timeout=timeout, env=e)


def train(cwd, out, *args, graph="verifiable", want=0):
    r = run(["run", f"{SOURCE}/graphs/{graph}.wg", "-c", "c.yaml", f"checkpoint.save_dir={out}", *args], cwd)
    assert r.returncode == want, f"exit {r.returncode}, {want} expected\n{r.stdout}{r.stderr}"
    return r


def sha(r):
    last = r.stdout.strip().split("\n")[-1]
    assert last.startswith("parameters sha256 "), r.stdout
    return last.split()[-1]


def log(cwd, out):
    """metrics without what a clock says"""
    rows = [json.loads(x) for x in open(f"{cwd}/{out}/metrics.jsonl")]
    return [{k: v for k, v in r.items() if k not in ("tokens_per_s", "step_s")} for r in rows]


def files(cwd, path):
    return {f: open(f"{cwd}/{path}/{f}", "rb").read() for f in sorted(os.listdir(f"{cwd}/{path}")) if f.endswith(".safetensors")}


def checkpoints(cwd, out):
    return sorted(x for x in os.listdir(f"{cwd}/{out}") if x.startswith("step-"))


def test_hostile_settings_and_files_end_at_once(d):
    """no wait, no crash: a FIFO as any input, unusable numbers, a small file that stands for a huge graph"""
    base = f"{SOURCE}/graphs/baseline.wg"
    os.mkfifo(f"{d}/fifo")
    os.mkfifo(f"{d}/f.plan")
    for args in (["check", base, "-c", "fifo"], ["eval", "fifo"], ["plan", "f.plan"], ["run", base, "-c", "c.yaml", "dataset.train=fifo"]):
        r = run(args, d, timeout=60)
        assert r.returncode == 65 and "not a regular file" in r.stderr, (args, r)
    weights = ["data_sampling.difficulty_bins=[[0,9]]"]
    for bad in (["runtime.memory_limit=abc"], ["runtime.memory_limit=-1"], weights + ["data_sampling.difficulty_weights=[-1]"],
                weights + ["data_sampling.difficulty_weights=[inf]"]):
        r = run(["run", base, "-c", "c.yaml", *bad], d, timeout=60)
        assert r.returncode == 1 and "C003" in r.stderr, (bad, r)
    with open(f"{d}/keys.yaml", "w") as f:
        f.write("".join(f"k{i}: 1\n" for i in range(60000)))
    assert "more than 4096 keys" in run(["check", base, "-c", "keys.yaml"], d, timeout=60).stderr
    twice = "".join(f"def f{i + 1}(x) = f{i}(x) + f{i}(x * 2)\n" for i in range(40))
    large = {"calls": f"def f0(x) = x + x\n{twice}weight = stop_grad(f40(nll))\n", "dims": "".join(f"dim d{i} = 2\n" for i in range(5000)),
             "names": "".join(f"a{i} = b{i}\n" for i in range(20000))}
    for name, text in large.items():
        with open(f"{d}/{name}.wg", "w") as f:
            f.write(f"graph {name} extends baseline\n{text}")
        r = run(["check", f"{name}.wg", "-c", "c.yaml", "--path", f"{SOURCE}/graphs"], d, timeout=120)
        assert r.returncode == 1 and r.stderr.startswith("error[E0"), (name, r)


def test_a_closed_pipe_and_a_limit_of_file_size_are_74(d):
    plan = f"plan {SOURCE}/graphs/baseline.wg -c c.yaml"
    r = subprocess.run(["/bin/bash", "-c", f"(sleep 1; {WMTPC} {plan}; echo $? > code) | true; sleep 3"], cwd=d, capture_output=True, text=True)
    assert open(f"{d}/code").read() == "74\n", r
    r = subprocess.run(["/bin/bash", "-c", f"ulimit -f 1; exec {WMTPC} compile {plan[5:]} -o big.plan"], cwd=d, capture_output=True, text=True)
    assert r.returncode == 74 and not os.path.exists(f"{d}/big.plan"), r


def test_a_state_that_nothing_reads_is_kept(d):
    with open(f"{d}/kept.wg", "w") as f:
        f.write("graph kept extends baseline\nstate s : f32[head] = 1 next mean(nll, per=head, where=valid)\n")
    r = run(["compile", "kept.wg", "-c", "c.yaml", "-o", "s.plan", "--path", f"{SOURCE}/graphs"], d)
    assert r.returncode == 0 and ' name="s" hf="" axes="" halves="" role="user"' in open(f"{d}/s.plan").read(), r


def test_two_runs_give_equal_bits(d):
    a, b = train(d, "a"), train(d, "b")
    assert sha(a) == sha(b) and log(d, "a") == log(d, "b")
    assert json.load(open(f"{d}/a/run.json"))["parameters_sha256"] == sha(a)
    assert files(d, "a/step-000008") == files(d, "b/step-000008")


def test_threads_change_no_bit(d):
    assert sha(train(d, "a", "runtime.threads=1")) == sha(train(d, "b", "runtime.threads=3"))


def test_resume_at_every_step(d):
    whole = train(d, "whole", graph="verifiable_ema")
    for k in range(1, 8):
        train(d, f"r{k}", f"--steps={k}", graph="verifiable_ema", want=0)
        again = train(d, f"r{k}", graph="verifiable_ema")
        assert sha(again) == sha(whole), f"stopped after step {k}"
        assert log(d, f"r{k}") == log(d, "whole"), f"stopped after step {k}"
        assert files(d, f"r{k}/step-000008") == files(d, "whole/step-000008")


def test_stop_at_each_step_by_signal(d):
    whole = train(d, "whole")
    for sig in (signal.SIGTERM, signal.SIGINT):
        out = f"s{int(sig)}"
        for attempt in range(12):
            p = subprocess.Popen([WMTPC, "run", f"{SOURCE}/graphs/verifiable.wg", "-c", "c.yaml", f"checkpoint.save_dir={out}"], cwd=d,
                                 stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
            time.sleep(0.1 + 0.07 * attempt)
            p.send_signal(sig)
            o, e = p.communicate(timeout=120)
            if p.returncode == 0:
                break
            assert p.returncode in (75, -int(sig)), f"exit {p.returncode}\n{e}"  # before the handler stands: the default
        last = train(d, out)
        assert sha(last) == sha(whole) and log(d, out) == log(d, "whole")


def test_killed_at_random_moments(d):
    whole = train(d, "whole")
    for attempt in range(10):
        p = subprocess.Popen([WMTPC, "run", f"{SOURCE}/graphs/verifiable.wg", "-c", "c.yaml", "checkpoint.save_dir=k"], cwd=d,
                             stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        time.sleep(0.05 + 0.11 * attempt)
        p.kill()
        p.communicate()
    assert sha(train(d, "k")) == sha(whole) and log(d, "k") == log(d, "whole")


def test_a_plan_runs_like_its_graph(d):
    r = run(["compile", f"{SOURCE}/graphs/verifiable.wg", "-c", "c.yaml", "-o", "v.plan", "beta=0.7"], d)
    assert r.returncode == 0, r.stderr
    p = run(["run", "v.plan", "-c", "c.yaml", "checkpoint.save_dir=p"], d)
    assert p.returncode == 0, p.stderr
    assert sha(p) == sha(train(d, "g", "beta=0.7"))
    text = open(f"{d}/v.plan").read()
    open(f"{d}/w.plan", "w").write(text.replace("micro=3", "micro=4", 1))
    assert run(["run", "w.plan", "-c", "c.yaml", "checkpoint.save_dir=w"], d).returncode == 65
    other = run(["run", "v.plan", "-c", "c.yaml", "training.batch_size=3", "checkpoint.save_dir=w"], d)
    assert other.returncode == 1 and "training.batch_size" in other.stderr, other.stderr


def test_a_second_start_compiles_nothing(d):
    env = {"WMTPC_CACHE": f"{d}/cache"}
    args = ["compile", f"{SOURCE}/graphs/critic.wg", "-c", "c.yaml", "-o", "a.plan"]
    first, second = run(args, d, env), run(args, d, env)
    assert "(0 built)" not in first.stderr and "(0 built)" in second.stderr, first.stderr + second.stderr


def test_owned_directory(d):
    p = subprocess.Popen([WMTPC, "run", f"{SOURCE}/graphs/verifiable.wg", "-c", "c.yaml", "checkpoint.save_dir=o", "training.n_epochs=400"], cwd=d,
                         stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while not os.path.exists(f"{d}/o/metrics.jsonl"):
        assert p.poll() is None
        time.sleep(0.05)
    r = train(d, "o", want=73)
    assert "R002" in r.stderr
    p.terminate()
    assert p.wait(timeout=120) == 75
    assert checkpoints(d, "o")


def test_critic_hands_its_value_head_over(d):
    train(d, "critic", graph="critic")
    ck = checkpoints(d, "critic")[-1]
    assert any(f.startswith("value-") for f in os.listdir(f"{d}/critic/{ck}")), os.listdir(f"{d}/critic/{ck}")
    assert not any(f.startswith("model-") for f in os.listdir(f"{d}/critic/{ck}"))  # a frozen model is not written
    a = train(d, "v", f"models.value.path=critic/{ck}")
    assert "weights of critic" in a.stderr and sha(a) != sha(train(d, "w"))


def test_a_tuned_model_is_the_reference(d):
    train(d, "base", graph="baseline")
    ck = checkpoints(d, "base")[-1]
    r = train(d, "rho", f"models.ref.path=base/{ck}", f"models.policy.path=base/{ck}", graph="rho1")
    assert "ref: weights of base" in r.stderr
    tune = train(d, "rho2", f"models.ref.path=base/{ck}", f"models.policy.path=base/{ck}", "--steps=3", graph="rho1")
    shutil.copytree(f"{d}/base", f"{d}/other")
    with open(f"{d}/other/{ck}/model-00001-of-00001.safetensors", "r+b") as f:
        f.seek(-4, 2)
        f.write(b"\1\2\3\4")
    bad = run(["run", f"{SOURCE}/graphs/rho1.wg", "-c", "c.yaml", "checkpoint.save_dir=rho2", f"models.ref.path=other/{ck}", f"models.policy.path=base/{ck}"], d)
    assert bad.returncode == 1 and "R008" in bad.stderr, bad.stderr + tune.stderr


def test_damaged_checkpoint_is_refused(d):
    train(d, "a", "--steps=4")
    ck = checkpoints(d, "a")[-1]
    for f in os.listdir(f"{d}/a/{ck}"):
        shutil.rmtree(f"{d}/b", ignore_errors=True)
        shutil.copytree(f"{d}/a", f"{d}/b")
        path = f"{d}/b/{ck}/{f}"
        raw = bytearray(open(path, "rb").read())
        raw[len(raw) // 2] ^= 64
        open(path, "wb").write(raw)
        assert train(d, "b", want=65).stderr.count("error[") >= 1


def test_disk_full_keeps_the_old_checkpoints(d):
    train(d, "a", "--steps=4")
    before = checkpoints(d, "a")
    assert before
    r = subprocess.run(["sh", "-c", f"ulimit -f 40; exec {WMTPC} run {SOURCE}/graphs/verifiable.wg -c c.yaml checkpoint.save_dir=a"], cwd=d, capture_output=True,
                       text=True, preexec_fn=lambda: signal.signal(signal.SIGXFSZ, signal.SIG_IGN))
    assert r.returncode == 74, f"{r.returncode} {r.stderr}"
    assert checkpoints(d, "a") == before
    assert sha(train(d, "a")) == sha(train(d, "whole"))


def test_non_finite_stops_before_the_update(d):
    open(f"{d}/bad.wg", "w").write("graph bad extends baseline\nhyper at : f32 = 3.0\nstate n : f32 = 0.0 next n + 1\nweight = where(n < at, 1.0, 1.0 / (at - n))\n")
    r = run(["run", "bad.wg", "-c", "c.yaml", "checkpoint.save_dir=n", f"-I{SOURCE}/graphs"], d)
    assert r.returncode == 79 and "R003" in r.stderr, f"{r.returncode} {r.stderr}"
    assert len([x for x in log(d, "n") if "train.loss" in x]) == 3


def test_what_does_not_fit_exits_71(d):
    r = train(d, "a", "runtime.memory_limit=1Mi", want=71)
    assert "P004" in r.stderr and not os.path.exists(f"{d}/a")
    p = run(["plan", f"{SOURCE}/graphs/verifiable.wg", "-c", "c.yaml", "runtime.memory_limit=1Mi", "--json"], d)
    assert p.returncode == 71 and json.loads(p.stdout)["fits"] is False


def test_exit_codes_of_mistakes(d):
    g = f"{SOURCE}/graphs/baseline.wg"
    cases = [(["chekc", g], 2, "did you mean"), (["check", g, "--jsn"], 2, "did you mean"), (["run", "none.wg", "-c", "c.yaml"], 66, "none.wg"),
             (["run", g, "-c", "none.yaml"], 66, "none.yaml"), (["run", g, "-c", "c.yaml", "training.n_epoch=2"], 1, "did you mean"),
             (["run", g, "-c", "c.yaml", "nrom=micro"], 1, "norm"), (["run", g, "-c", "c.yaml", "lr=7"], 1, "E060"),
             (["run", g, "-c", "c.yaml", "lr=big"], 1, "E061"), (["run", g, "-c", "c.yaml", "dataset.train=none.jsonl"], 66, "none.jsonl"),
             (["run", g, "-c", "c.yaml", "-n", "4"], 1, "one rank"), (["run", g, "-c", "c.yaml", "distributed.sharding_strategy=FULL_SHARD"], 1, "NO_SHARD"),
             (["run", g, "-c", "c.yaml", "models.polcy.hidden=3"], 1, "policy"), (["check", f"{SOURCE}/graphs/examples/lora.wg"], 1, "E080")]
    for args, code, text in cases:
        r = run(args, d)
        assert r.returncode == code and text in r.stderr, f"{args}: {r.returncode} {r.stderr}"


def test_no_compiler(d):
    r = run(["run", f"{SOURCE}/graphs/baseline.wg", "-c", "c.yaml", "checkpoint.save_dir=x"], d, {"PATH": d, "WMTPC_CACHE": f"{d}/cache"})
    assert r.returncode == 69 and "apt" in r.stderr, f"{r.returncode} {r.stderr}"


def test_unsafe_cache(d):
    os.mkdir(f"{d}/open")
    os.chmod(f"{d}/open", 0o777)
    r = run(["run", f"{SOURCE}/graphs/baseline.wg", "-c", "c.yaml", "checkpoint.save_dir=x"], d, {"WMTPC_CACHE": f"{d}/open"})
    assert r.returncode == 69 and "open" in r.stderr, f"{r.returncode} {r.stderr}"


def test_export_and_import_give_equal_bits(d):
    train(d, "a", graph="baseline")
    ck = checkpoints(d, "a")[-1]
    for to in ("meta", "hf"):
        r = run(["model", "export", f"a/{ck}", "-o", to, "--to", to], d)
        assert r.returncode == 0, r.stderr
        train(d, f"from-{to}", f"models.policy.path={to}", "--steps=2", graph="baseline")
    train(d, "from-ck", f"models.policy.path=a/{ck}", "--steps=2", graph="baseline")
    logs = [log(d, x) for x in ("from-meta", "from-hf", "from-ck")]
    assert logs[0] == logs[1] == logs[2]


def test_config_reads_back(d):
    train(d, "a")
    r = run(["run", f"{SOURCE}/graphs/verifiable.wg", "-c", "a/config.yaml", "checkpoint.save_dir=b"], d)
    assert r.returncode == 0, r.stderr
    assert log(d, "a") == log(d, "b")


def test_rates_follow_the_schedule_over_all_steps(d):
    train(d, "a", graph="baseline")
    rows = [r for r in log(d, "a") if "lr.0" in r]
    assert len(rows) == 8
    for r in rows:  # cosine to half a percent of the peak; 3 % of 8 steps are no step of warm-up
        want = rows[0]["lr.0"] * (0.005 + 0.995 * (1 + math.cos(math.pi * (r["step"] - 1) / 8)) / 2)
        assert abs(r["lr.0"] - want) <= 1e-12 * rows[0]["lr.0"], f"step {r['step']}: {r['lr.0']}, not {want}"


def test_micro_batches_cut_the_same_step(d):
    train(d, "a", graph="baseline")
    train(d, "b", "training.batch_size=6", "training.micro_batches=1", graph="baseline")
    a, b = [r for r in log(d, "a") if "grad_norm" in r], [r for r in log(d, "b") if "grad_norm" in r]
    assert len(a) == len(b) == 8
    for x, y in zip(a, b):
        for key in ("train.loss", "grad_norm", "tokens"):
            assert abs(x[key] - y[key]) <= 1e-4 * abs(y[key]), f"step {x['step']}: {key} {x[key]} and {y[key]}"


def test_the_best_is_the_smallest_validation_loss(d):
    train(d, "a", "checkpoint.save_total_limit=0", graph="baseline")
    val = {r["step"]: r["val.loss"] for r in log(d, "a") if "val.loss" in r}
    best = min(val, key=val.get)
    assert len(val) > 2 and len(set(val.values())) > 1
    run_json = json.load(open(f"{d}/a/run.json"))
    assert run_json["best_step"] == best and run_json["best"] == val[best], run_json


def main():
    names = sys.argv[3:] or [n for n in globals() if n.startswith("test_")]
    failed = 0
    for n in names:
        d = tempfile.mkdtemp(prefix="wm_e2e_")
        open(f"{d}/c.yaml", "w").write(CONFIG.replace("SRC", SOURCE))
        t = time.time()
        try:
            globals()[n](d)
            print(f"ok      {n}  {time.time() - t:.1f} s", flush=True)
            shutil.rmtree(d)
        except Exception as x:
            failed += 1
            print(f"FAILED  {n}: {type(x).__name__} {x}\n        kept in {d}", flush=True)
    print(f"{len(names) - failed} of {len(names)} passed")
    return failed != 0


if __name__ == "__main__":
    sys.exit(main())
