#!/usr/bin/env python3
"""Rules of the source tree that no compiler checks.

    python3 rules.py RULE SOURCE_DIR [BUILD_DIR]      RULE: a function rule_* below; 1 with one line for each breach
    python3 rules.py self_test                        breaks every rule once in a tree made up for it

Standard library only. `calls` and `statics` read the object files of BUILD_DIR (a gcc build without sanitizers).
"""
import os, re, subprocess, sys, tempfile

# Which folders a folder may include, and single headers besides.
BELOW = {
    "base": set(),
    "ir": {"base"},
    "frontend": {"ir", "base"},
    "passes": {"ir", "base"},
    "codegen": {"ir", "base"},
    "runtime": {"base"},
    "cli": {"frontend", "passes", "codegen", "runtime", "ir", "base"},
}
HEADERS = {"codegen": {"runtime/plan.h"}}

# Headers of libraries and the only places that include them.
LIBRARIES = {
    r"yaml\.h": {"cli/config/yaml.c"},
    r"jansson\.h": {"runtime/json.c"},
    r"xxhash\.h": {"base/hash.c", "runtime/checkpoint/hash.c"},  # the second needs the streaming form
    r"uni(?!std)[a-z]+\.h": {"base/text.c", "frontend/lex.c"},
    r"openssl/.*": {"runtime/state.c"},
}

# What object files may take from outside the project: pure functions of the C library ..
PURE = set("""
    memchr memcmp memcpy memmove memset strchr strcmp strcspn strlen strncmp strpbrk strrchr strspn strstr
    strtod strtoul snprintf vsnprintf __isoc99_sscanf qsort strerrordesc_np __errno_location
    ceil cos erf exp fabs floor fmax fmin fmod fma log log1p log2 nearbyint pow sin sincos sqrt tan tanh cosh sinh exp2 expm1 erff
    round trunc rint lround ldexp frexp isnan
    __popcountdi2 __cpu_indicator_init __cpu_model _GLOBAL_OFFSET_TABLE_ __stack_chk_fail __memcpy_chk __sched_cpucount
""".split())
# .. libraries, which their headers already hold in one place ..
LIBRARY_CALLS = re.compile(r"(yaml|json|EVP|u8|uc|uninorm)_|XXH")
# .. and these, by file: the one door to the system, and what a program with a terminal needs.
CALLS = {
    "base/env_posix.c": None,  # anything
    "base/guard.c": {"_setjmp", "longjmp"},
    "runtime/device/pool.c": {  # threads come from the Env; what they wait on does not fail
        "pthread_mutex_init", "pthread_mutex_lock", "pthread_mutex_unlock", "pthread_mutex_destroy", "pthread_cond_init",
        "pthread_cond_wait", "pthread_cond_signal", "pthread_cond_broadcast", "pthread_cond_destroy"},
    "frontend/wg_lexer.c": {"stdin", "stdout"},  # named by flex, never reached: it reads from memory
    "cli/signals.c": {"sigaction", "sigemptyset", "_exit"},
    "cli/main.c": {"stdout", "stderr", "stdin", "fwrite", "fputc", "fputs", "fprintf", "printf", "fflush", "isatty", "getopt_long", "vfprintf",
                   "puts", "putchar", "optind", "optarg", "opterr", "optopt"},
    "cli/cmd_run.c": {"stdout", "stderr", "fprintf", "fflush", "isatty", "fputs", "fputc", "fwrite"},
    "cli/draw.c": {"stdout", "fwrite", "isatty"},
}

# Statics that are written to.
STATICS = {"cli/signals.c": {"stop_flag"}}

WORDS = [(r"/(work|root|home)/", "the path of one machine"), (r"(/\*|//|#|\*).*\b(TO" r"DO|FIX" r"ME|X" r"XX)\b", "unfinished work")]
SKIP = re.compile(r"(build.*|runs|\.git|\.cache|__pycache__)$")


def files(root, *endings):
    out = []
    for folder, dirs, names in os.walk(root):
        dirs[:] = sorted(x for x in dirs if not SKIP.match(x))
        out += [os.path.relpath(os.path.join(folder, n), root) for n in sorted(names) if n.endswith(endings) and n != ".git"]
    return out


def lines(root, name):
    try:
        return open(os.path.join(root, name), encoding="utf-8").read().split("\n")
    except UnicodeDecodeError:
        return []  # not text


def sources(root):
    return [f for f in files(root, ".c", ".h", ".l", ".y", ".def", ".inc") if f.split("/")[0] in BELOW]


def rule_includes(root, build):
    """An #include points down."""
    for f in sources(root):
        own = f.split("/")[0]
        for k, line in enumerate(lines(root, f), 1):
            m = re.match(r'\s*#\s*include\s+"([^"]+)"', line)
            if not m:
                continue
            other = m.group(1).split("/")[0]
            if other != own and other not in BELOW[own] and m.group(1) not in HEADERS.get(own, ()):
                yield f"{f}:{k}: {own}/ must not include {m.group(1)}"


def rule_libraries(root, build):
    """Each library has one place."""
    for f in sources(root):
        for k, line in enumerate(lines(root, f), 1):
            m = re.match(r"\s*#\s*include\s+<([^>]+)>", line)
            for header, places in LIBRARIES.items():
                if m and re.fullmatch(header, m.group(1)) and f not in places:
                    yield f"{f}:{k}: <{m.group(1)}> is included by {', '.join(sorted(places))} alone"


def rule_switches(root, build):
    """What an op means stands in its row; only the reference evaluator switches over ops."""
    for f in sources(root):
        if re.match(r"ir/eval[^/]*\.c$", f):
            continue
        for k, line in enumerate(lines(root, f), 1):
            if re.search(r"\bcase\s+OP_", line):
                yield f"{f}:{k}: a switch over ops outside ir/eval*.c; a column or a flag of ir/ops.def says it"


def rule_sizes(root, build):
    """Files of at most 1000 lines, functions of at most 100."""
    for f in files(root, ".c", ".h", ".l", ".y", ".def", ".inc", ".py", ".sh", ".cmake"):
        text, start = lines(root, f), None
        if len(text) > 1001:
            yield f"{f}: {len(text) - 1} lines; a file has at most 1000"
        for k, line in enumerate(text, 1):
            if f.endswith((".c", ".h")) and re.match(r"([A-Za-z_].*)?\)? *\{$", line) and ")" in line:
                start = k
            if line == "}" and start:
                if k - start + 1 > 100:
                    yield f"{f}:{start}: a function of {k - start + 1} lines; at most 100"
                start = None


def rule_words(root, build):
    """No paths of one machine, nothing marked as unfinished."""
    for f in files(root, ""):
        for k, line in enumerate(lines(root, f), 1):
            for word, why in WORDS:
                if re.search(word, line) and f != "tests/rules/rules.py":
                    yield f"{f}:{k}: {why}: {line.strip()[:80]}"


def objects(root, build):
    """(source, object) of every file of the libraries and of the program."""
    flat = os.path.join(build, "CMakeFiles")
    for f in sources(root) + ["frontend/wg_lexer.c", "frontend/wg_parser.c"]:
        if not f.endswith(".c"):
            continue
        path = os.path.join(flat, f"wm_{f.split('/')[0]}.dir", f + ".o")
        if not os.path.exists(path):
            path = os.path.join(flat, "wmtpc.dir", f + ".o")
        yield f, path


def output(*args):
    return subprocess.run(args, check=True, capture_output=True, text=True).stdout.split("\n")


def rule_calls(root, build):
    """System calls go through base/env_posix.c."""
    name = {path: f for f, path in objects(root, build)}
    seen = {f: [] for f in name.values()}
    for path, _, rest in (x.partition(":") for x in output("nm", "-A", *name)):
        if path in name:
            seen[name[path]].append(rest.split())
    seen = sorted(seen.items())
    own = {x[2] for _, rows in seen for x in rows if len(x) == 3}
    for f, rows in seen:
        allowed = CALLS.get(f, set())
        for x in rows:
            if len(x) != 2 or x[0] not in "Uw" or x[1] in own | PURE or allowed is None or x[1] in allowed or LIBRARY_CALLS.match(x[1]):
                continue
            yield f"{f}: calls {x[1]}; the system is reached through Env (base/env_posix.c)"


def rule_statics(root, build):
    """No variables with static storage but constants."""
    for f, path in objects(root, build):
        for line in output("objdump", "-t", path):
            m = re.match(r"[0-9a-f]+ .{7} (\S+)\s+([0-9a-f]+) (?:\.hidden )?(\S+)$", line)
            if not m or not re.match(r"\.(data|bss|tdata|tbss)|\*COM\*", m.group(1)) or ".rel.ro" in m.group(1) or int(m.group(2), 16) == 0:
                continue
            name = re.sub(r"\.\d+$", "", m.group(3))
            if name not in STATICS.get(f, ()):
                yield f"{f}: {name} can be written to; state lives in a context that is passed"


def rule_format(root, build):
    """clang-format has nothing to change."""
    names = files(root, ".c", ".h")
    r = subprocess.run(["clang-format", "--dry-run", "--ferror-limit=1", *names], cwd=root, capture_output=True, text=True)
    if r.returncode:
        yield r.stderr
    for line in sorted({x.split(":")[0] for x in r.stderr.split("\n") if "[-Wclang-format-violations]" in x}):
        yield f"{line}: not formatted; run `make format`"


RULES = {k[5:]: v for k, v in sorted(globals().items()) if k.startswith("rule_")}

BROKEN = {  # rule: (file, text, what the message must say)
    "includes": ("runtime/x.c", '#include "ir/ir.h"\n', "runtime/ must not include ir/ir.h"),
    "libraries": ("passes/x.c", "#include <yaml.h>\n", "<yaml.h> is included by"),
    "switches": ("passes/x.c", "int f(int op) {\n    switch (op) {\n    case OP_add:\n        return 1;\n    }\n}\n", "passes/x.c:3"),
    "sizes": ("ir/x.c", "int f(void) {\n" + "    g();\n" * 99 + "}\n", "101 lines"),
    "words": ("docs/x.md", "see /ro" "ot/x\n", "the path of one machine"),
    "calls": ("runtime/x.c", "#include <stdlib.h>\nvoid *f(void);\nvoid *f(void) { return malloc(8); }\n", "calls malloc"),
    "statics": ("codegen/x.c", "int f(void);\nint f(void) { static int n; return n++; }\n", "n can be written to"),
    "format": ("base/x.c", "int  f(void){return 1;}\n", "not formatted"),
}


def self_test():
    bad = 0
    for name, rule in RULES.items():
        f, text, say = BROKEN[name]
        with tempfile.TemporaryDirectory() as top:
            root, build = os.path.join(top, "tree"), os.path.join(top, "objects")
            for where in (f, "frontend/wg_lexer.c", "frontend/wg_parser.c"):
                os.makedirs(os.path.join(root, os.path.dirname(where)), exist_ok=True)
                open(os.path.join(root, where), "w").write(text if where == f else "/* empty */\n")
                path = os.path.join(build, "CMakeFiles", f"wm_{where.split('/')[0]}.dir", where + ".o")
                os.makedirs(os.path.dirname(path), exist_ok=True)
                if name in ("calls", "statics"):
                    subprocess.run(["cc", "-O0", "-c", os.path.join(root, where), "-o", path], check=True)
            open(os.path.join(root, ".clang-format"), "w").write("BasedOnStyle: LLVM\n")
            found = list(rule(root, build))
            if len(found) != 1 or say not in found[0]:
                print(f"{name}: one breach was expected, with '{say}'; found {found}")
                bad = 1
    return bad


def main():
    if sys.argv[1] == "self_test":
        return self_test()
    found = list(RULES[sys.argv[1]](sys.argv[2], sys.argv[3] if len(sys.argv) > 3 else ""))
    for line in found:
        print(line)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
