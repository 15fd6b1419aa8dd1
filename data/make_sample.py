#!/usr/bin/env python3
"""Makes the sample data: small programming problems, each with correct and incorrect Python answers that were run.

    python3 data/make_sample.py [OUT_DIR]          (default: the folder of this script)

Every family below is one kind of problem with a few parameters. Its answers are templates; each is run against the
family's reference function on fixed inputs: `score` is the share of tests passed, `is_correct` says that it is all of
them. What an answer is called here plays no part in its label. Standard library only; the same output every time.
"""
import json, os, random, sys

TESTS = 12
ANSWERS = 8


def num(rng): return rng.randint(-20, 20)
def nums(rng): return [rng.randint(-9, 9) for _ in range(rng.randint(0, 7))]
def word(rng): return "".join(rng.choice("abcdeAB xyz") for _ in range(rng.randint(0, 9)))


# name, difficulty 1..5, instruction, input maker, parameters, reference, answers (expressions or bodies of f(x))
FAMILIES = [
    ("add", 1, "Write f(x) that returns x plus {k}.", num, [3, 5, 7, 11, 12, 15, 20, 25, 31, 40], lambda x, k: x + k,
     ["x + {k}", "{k} + x", "sum([x, {k}])", "x - (-{k})", "x - {k}", "x * {k}", "{k} - x", "x + {k} + 1", "abs(x) + {k}", "x"]),
    ("scale", 1, "Write f(x) that returns {k} times x, plus 1.", num, [2, 3, 4, 5, 6, 7, 8, 9, 10, 12], lambda x, k: k * x + 1,
     ["{k} * x + 1", "x * {k} + 1", "1 + {k} * x", "sum([x] * {k}) + 1", "{k} * (x + 1)", "{k} * x", "{k} * x - 1", "x + {k}", "{k} * abs(x) + 1", "x ** {k} + 1"]),
    ("multiple", 1, "Write f(x) that tells whether x is a multiple of {k}.", num, [2, 3, 4, 5, 6, 7, 8, 9, 10, 11], lambda x, k: x % k == 0,
     ["x % {k} == 0", "not x % {k}", "x // {k} * {k} == x", "divmod(x, {k})[1] == 0", "x % {k} == 1", "x / {k} == 0", "x % {k} != 0", "x > {k}", "x % {k} == 0 and x > 0", "{k} % (abs(x) + 1) == 0"]),
    ("clamp", 2, "Write f(x) that limits x to the range from -{k} to {k}.", num, [2, 3, 4, 5, 6, 8, 9, 10, 12, 15], lambda x, k: max(-k, min(k, x)),
     ["max(-{k}, min({k}, x))", "min({k}, max(-{k}, x))", "sorted([-{k}, x, {k}])[1]", "-{k} if x < -{k} else {k} if x > {k} else x",
      "min(-{k}, max({k}, x))", "max({k}, min(-{k}, x))", "min({k}, x)", "max(-{k}, x)", "x if abs(x) < {k} else {k}", "x % {k}"]),
    ("digits", 3, "Write f(x) that returns the sum of the digits of x, times {k}.", lambda r: r.randint(0, 9999), [1, 2, 3, 4, 5, 6, 7, 8, 9, 10],
     lambda x, k: sum(map(int, str(x))) * k,
     ["sum(map(int, str(x))) * {k}", "{k} * sum(int(c) for c in str(x))", "sum({k} * int(c) for c in str(x))", "sum(ord(c) - 48 for c in str(x)) * {k}",
      "len(str(x)) * {k}", "sum(map(int, str(x))) + {k}", "int(str(x)[0]) * {k}", "x % 10 * {k}", "sum(map(int, str(x * {k})))", "max(map(int, str(x))) * {k}"]),
    ("square_list", 2, "Write f(x) that adds {k} to every number of the list x.", nums, [1, 2, 3, 4, 5, 6, 7, 8, 9, 10], lambda x, k: [v + k for v in x],
     ["[v + {k} for v in x]", "list(map(lambda v: v + {k}, x))", "[{k} + v for v in x]", "[sum((v, {k})) for v in x]",
      "x + [{k}]", "[v * {k} for v in x]", "[v - {k} for v in x]", "[v + {k} for v in x[1:]]", "[v + {k} for v in sorted(x)]", "sum(x) + {k}"]),
    ("above", 2, "Write f(x) that counts the numbers of the list x above {k}.", nums, [-5, -4, -3, -2, -1, 0, 1, 2, 3, 4], lambda x, k: sum(v > k for v in x),
     ["sum(v > {k} for v in x)", "len([v for v in x if v > {k}])", "sum(1 for v in x if v > {k})", "len(x) - sum(v <= {k} for v in x)",
      "sum(v >= {k} for v in x)", "sum(v for v in x if v > {k})", "sum(v < {k} for v in x)", "len(x)", "max(x, default=0) > {k}", "len(set(v for v in x if v > {k}))"]),
    ("largest", 3, "Write f(x) that returns the {k} largest numbers of the list x, largest first.", nums, [1, 2, 3, 4, 5, 6, 7, 8, 9, 10],
     lambda x, k: sorted(x, reverse=True)[:k],
     ["sorted(x, reverse=True)[:{k}]", "sorted(x)[::-1][:{k}]", "sorted(x, key=lambda v: -v)[:{k}]", "list(reversed(sorted(x)))[:{k}]",
      "sorted(x)[:{k}]", "sorted(x)[-{k}:]", "x[:{k}]", "sorted(set(x), reverse=True)[:{k}]", "sorted(x, reverse=True)[{k}:]", "max(x, default=0)"]),
    ("every", 3, "Write f(x) that returns every {k}th item of the list x, starting with the first.", nums, [2, 3, 4, 5, 6, 7, 8], lambda x, k: x[::k],
     ["x[::{k}]", "[v for i, v in enumerate(x) if i % {k} == 0]", "[x[i] for i in range(0, len(x), {k})]", "list(x[::{k}])",
      "x[{k}::{k}]", "x[:{k}]", "x[1::{k}]", "x[::-{k}]", "[v for i, v in enumerate(x) if i % {k}]", "[x[i] for i in range(1, len(x), {k})]"]),
    ("count_letter", 2, "Write f(x) that counts the letter {k!r} in the text x.", word, list("abcdeABxyz"), lambda x, k: x.count(k),
     ["x.count({k!r})", "sum(c == {k!r} for c in x)", "len([c for c in x if c == {k!r}])", "len(x) - len(x.replace({k!r}, ''))",
      "x.find({k!r})", "{k!r} in x", "len(x.split({k!r}))", "x.lower().count({k!r})", "x.count({k!r}) + 1", "len(x)"]),
    ("repeat", 1, "Write f(x) that repeats the text x {k} times.", word, [2, 3, 4, 5, 6, 7, 8, 9, 10, 12], lambda x, k: x * k,
     ["x * {k}", "{k} * x", "''.join([x] * {k})", "''.join(x for _ in range({k}))", "x + '{k}'", "x * ({k} - 1)", "[x] * {k}", "' '.join([x] * {k})", "x * {k} + x", "''.join(c * {k} for c in x)"]),
    ("cut", 2, "Write f(x) that returns the text x without its first {k} characters.", word, [1, 2, 3, 4, 5, 6, 7, 8], lambda x, k: x[k:],
     ["x[{k}:]", "''.join(c for i, c in enumerate(x) if i >= {k})", "x[min({k}, len(x)):]", "''.join(list(x)[{k}:])",
      "x[:{k}]", "x[:-{k}]", "x[{k} - 1:]", "x[{k}]  if len(x) > {k} else ''", "x[{k} + 1:]", "x.lstrip(x[:{k}])"]),
    ("swap", 3, "Write f(x) that turns the text x around and adds {k!r} at its end.", word, list("!?.;:+*#-=_/"), lambda x, k: x[::-1] + k,
     ["x[::-1] + {k!r}", "''.join(reversed(x)) + {k!r}", "''.join([*reversed(x), {k!r}])", "({k!r} + x)[::-1]",
      "x + {k!r}", "{k!r} + x[::-1]", "(x + {k!r})[::-1]", "x[::-1]", "x[-1:] + {k!r}", "''.join(sorted(x)) + {k!r}"]),
    ("words", 3, "Write f(x) that counts the words of the text x longer than {k}.", word, [0, 1, 2, 3, 4, 5], lambda x, k: sum(len(w) > k for w in x.split()),
     ["sum(len(w) > {k} for w in x.split())", "len([w for w in x.split() if len(w) > {k}])", "sum(1 for w in x.split() if len(w) > {k})", "len(list(filter(lambda w: len(w) > {k}, x.split())))",
      "len(x.split()) > {k}", "sum(len(w) >= {k} for w in x.split())", "len(x) > {k}", "sum(len(w) for w in x.split()) > {k}", "x.count(' ') + 1", "sum(len(w) > {k} for w in x)"]),
    ("power", 3, "Write f(x) that returns the last digit of x to the power {k}.", lambda r: r.randint(0, 30), [2, 3, 4, 5, 6, 7, 8, 9, 10, 11], lambda x, k: x ** k % 10,
     ["x ** {k} % 10", "pow(x, {k}, 10)", "int(str(x ** {k})[-1])", "pow(x % 10, {k}) % 10", "x * {k} % 10", "x % 10 ** {k}", "(x % 10) ** {k}", "{k} ** x % 10", "x ** {k} // 10", "pow(x, {k})"]),
    ("steps", 4, "Write f(x) that says how often x can be halved (rounding down) before it is at most {k}.", lambda r: r.randint(0, 500), [0, 1, 2, 3, 4, 5, 6, 7, 8, 9],
     lambda x, k: steps(x, k),
     ["@n = 0\nwhile x > {k}:\n    x //= 2\n    n += 1\nreturn n", "@return 0 if x <= {k} else 1 + f(x // 2)", "@n = 0\nwhile (x >> n) > {k}:\n    n += 1\nreturn n", "@return next(n for n in range(99) if x >> n <= {k})",
      "@n = 0\nwhile x >= {k} and n < 50:\n    x //= 2\n    n += 1\nreturn n", "@return x // 2 - {k}", "@n = 1\nwhile x > {k}:\n    x //= 2\n    n += 1\nreturn n", "@return x.bit_length()", "@n = 0\nwhile x > {k}:\n    x -= 2\n    n += 1\nreturn n", "@return x // ({k} + 1)"]),
    ("divisors", 4, "Write f(x) that returns the divisors of x that are at least {k}, smallest first.", lambda r: r.randint(1, 60), [1, 2, 3, 4, 5, 6, 7, 8, 9, 10],
     lambda x, k: [v for v in range(k, x + 1) if x % v == 0],
     ["[v for v in range({k}, x + 1) if x % v == 0]", "[v for v in range(1, x + 1) if x % v == 0 and v >= {k}]", "list(filter(lambda v: x % v == 0, range({k}, x + 1)))", "sorted({{v for v in range({k}, x + 1) if not x % v}})",
      "[v for v in range({k}, x) if x % v == 0]", "[v for v in range(1, x + 1) if x % v == 0]", "[v for v in range({k} + 1, x + 1) if x % v == 0]", "[v for v in range({k}, x + 1) if x % v]", "[v for v in range(x, {k} - 1, -1) if x % v == 0]", "[{k}, x]"]),
    ("gap", 4, "Write f(x) that returns the differences of neighbours of the list x, each times {k}.", nums, [1, 2, 3, 4, 5, 6, 7, 8, 9, 10],
     lambda x, k: [(b - a) * k for a, b in zip(x, x[1:])],
     ["[(b - a) * {k} for a, b in zip(x, x[1:])]", "[(x[i + 1] - x[i]) * {k} for i in range(len(x) - 1)]", "[{k} * x[i] - {k} * x[i - 1] for i in range(1, len(x))]", "[{k} * (b - a) for a, b in zip(x[:-1], x[1:])]",
      "[(a - b) * {k} for a, b in zip(x, x[1:])]", "[b - a * {k} for a, b in zip(x, x[1:])]", "[(b - a) * {k} for a, b in zip(x, x)]", "[abs(b - a) * {k} for a, b in zip(x, x[1:])]", "[(b + a) * {k} for a, b in zip(x, x[1:])]", "[v * {k} for v in x[1:]]"]),
    ("rotate", 4, "Write f(x) that moves the first {k} items of the list x to its end. A list with fewer items stays as it is.", nums, [1, 2, 3, 4, 5, 6, 7],
     lambda x, k: x[k:] + x[:k] if len(x) >= k else x,
     ["x[{k}:] + x[:{k}]", "x[{k}:] + x[:{k}] if len(x) >= {k} else x", "[*x[{k}:], *x[:{k}]]", "list(x[{k}:]) + list(x[:{k}])",
      "x[:{k}] + x[{k}:]", "x[-{k}:] + x[:-{k}]", "x[{k}:]", "x[{k}:] + x[::{k}]", "x[{k} + 1:] + x[:{k} + 1]", "x[::-1]"]),
    ("running", 5, "Write f(x) that returns the running sums of the list x, never below -{k}.", nums, [0, 1, 2, 3, 4, 5, 6, 7, 8, 9],
     lambda x, k: running(x, k),
     ["@out, s = [], 0\nfor v in x:\n    s = max(-{k}, s + v)\n    out.append(s)\nreturn out", "@s, out = 0, []\nfor v in x:\n    s += v\n    if s < -{k}:\n        s = -{k}\n    out += [s]\nreturn out",
      "@from itertools import accumulate\nreturn list(accumulate(x, lambda s, v: max(-{k}, s + v), initial=0))[1:]", "@out = []\nfor v in x:\n    out.append(max(-{k}, (out[-1] if out else 0) + v))\nreturn out",
      "@out, s = [], 0\nfor v in x:\n    s += v\n    out.append(max(-{k}, s))\nreturn out", "@out, s = [], 0\nfor v in x:\n    s = max({k}, s + v)\n    out.append(s)\nreturn out",
      "@return [max(-{k}, v) for v in x]", "@return [sum(x[:i]) for i in range(len(x))]", "@out, s = [], 0\nfor v in x:\n    out.append(s)\n    s = max(-{k}, s + v)\nreturn out", "@return max(-{k}, sum(x))"]),
    ("second", 5, "Write f(x) that returns the second largest different number of the list x, or {k} without one.", nums, [-1, 0, 1, 5, 10, 25, 50, 77, 99, 100],
     lambda x, k: sorted(set(x))[-2] if len(set(x)) > 1 else k,
     ["sorted(set(x))[-2] if len(set(x)) > 1 else {k}", "(sorted(set(x), reverse=True) + [{k}, {k}])[1] if len(set(x)) > 1 else {k}", "max((v for v in x if v != max(x)), default={k})", "([{k}] + sorted(set(x))[:-1])[-1]",
      "sorted(x)[-2] if len(x) > 1 else {k}", "sorted(set(x))[1] if len(set(x)) > 1 else {k}", "max(x, default={k})", "sorted(set(x))[-2] if x and len(set(x)) > 2 else {k}", "min(x, default={k})", "{k}"]),
    ("vowels", 2, "Write f(x) that replaces each of the letters a and e in the text x by {k!r}.", word, list("-_*.#+=o!?"), lambda x, k: x.replace("a", k).replace("e", k),
     ["x.replace('a', {k!r}).replace('e', {k!r})", "''.join({k!r} if c in 'ae' else c for c in x)", "x.translate({{97: {k!r}, 101: {k!r}}})", "x.replace('e', {k!r}).replace('a', {k!r})",
      "x.replace('ae', {k!r})", "x.replace('a', {k!r})", "x.replace('a', 'e').replace('e', 'a')", "''.join(c if c in 'ae' else {k!r} for c in x)", "x.replace('A', {k!r}).replace('E', {k!r})", "x.strip('ae') + {k!r}"]),
    ("index", 3, "Write f(x) that returns the place of the first number above {k} in the list x, or -1.", nums, [-5, -4, -3, -2, -1, 0, 1, 2, 3, 4], lambda x, k: next((i for i, v in enumerate(x) if v > k), -1),
     ["next((i for i, v in enumerate(x) if v > {k}), -1)", "min((i for i in range(len(x)) if x[i] > {k}), default=-1)", "([i for i, v in enumerate(x) if v > {k}] + [-1])[0]", "@for i, v in enumerate(x):\n    if v > {k}:\n        return i\nreturn -1",
      "next((i for i, v in enumerate(x) if v >= {k}), -1)", "next((v for v in x if v > {k}), -1)", "max((i for i in range(len(x)) if x[i] > {k}), default=-1)", "next((i for i, v in enumerate(x, 1) if v > {k}), -1)", "next((i for i, v in enumerate(x) if v > {k}), 0)", "x.index({k}) if {k} in x else -1"]),
    ("pairs", 5, "Write f(x) that counts the pairs of places i < j in the list x whose numbers add up to {k}.", nums, [0, 1, 2, 3, 4, 5, 6, 7, 8, 9],
     lambda x, k: sum(x[i] + x[j] == k for j in range(len(x)) for i in range(j)),
     ["sum(x[i] + x[j] == {k} for j in range(len(x)) for i in range(j))", "sum(a + b == {k} for i, a in enumerate(x) for b in x[i + 1:])", "@n = 0\nfor j in range(len(x)):\n    n += x[:j].count({k} - x[j])\nreturn n", "@from itertools import combinations\nreturn sum(a + b == {k} for a, b in combinations(x, 2))",
      "sum(a + b == {k} for a in x for b in x)", "sum(a + b == {k} for a, b in zip(x, x[1:]))", "sum(x[i] + x[j] == {k} for j in range(len(x)) for i in range(j + 1))", "sum({k} - v in x for v in x)", "sum(sum(x) == {k} for v in x)", "x.count({k})"]),
    ("fizz", 4, "Write f(x) that returns 'both' for multiples of 2 and {k}, 'two' for multiples of 2, 'k' for multiples of {k}, else 'none'.", lambda r: r.randint(0, 60), [3, 5, 7, 9, 11, 13, 15, 17, 19, 21],
     lambda x, k: "both" if x % 2 == 0 and x % k == 0 else "two" if x % 2 == 0 else "k" if x % k == 0 else "none",
     ["'both' if x % (2 * {k}) == 0 else 'two' if x % 2 == 0 else 'k' if x % {k} == 0 else 'none'", "['none', 'k', 'two', 'both'][2 * (x % 2 == 0) + (x % {k} == 0)]",
      "@if x % 2 == 0 and x % {k} == 0:\n    return 'both'\nif x % 2 == 0:\n    return 'two'\nreturn 'k' if x % {k} == 0 else 'none'", "{{(1, 1): 'both', (1, 0): 'two', (0, 1): 'k', (0, 0): 'none'}}[x % 2 == 0, x % {k} == 0]",
      "'two' if x % 2 == 0 else 'k' if x % {k} == 0 else 'both' if x % (2 * {k}) == 0 else 'none'", "'both' if x % 2 == 0 or x % {k} == 0 else 'none'", "'both' if x % (2 + {k}) == 0 else 'two' if x % 2 == 0 else 'k' if x % {k} == 0 else 'none'",
      "'two' if x % 2 == 0 else 'none'", "'k' if x % 2 == 0 else 'two' if x % {k} == 0 else 'none'", "'none'"]),
    ("median", 5, "Write f(x) that returns the middle number of the sorted list x (the lower one of two), or {k} for an empty list.", nums, [-1, 0, 1, 7, 10, 20, 42, 50, 77, 99], lambda x, k: sorted(x)[(len(x) - 1) // 2] if x else k,
     ["sorted(x)[(len(x) - 1) // 2] if x else {k}", "@if not x:\n    return {k}\ny = sorted(x)\nreturn y[(len(y) - 1) // 2]", "(sorted(x) or [{k}])[(max(len(x), 1) - 1) // 2]", "@from statistics import median_low\nreturn median_low(x) if x else {k}",
      "sorted(x)[len(x) // 2] if x else {k}", "x[(len(x) - 1) // 2] if x else {k}", "sum(x) // len(x) if x else {k}", "sorted(x)[-1] if x else {k}", "sorted(x)[(len(x) - 1) // 2] if x else 0", "sorted(set(x))[(len(set(x)) - 1) // 2] if x else {k}"]),
    ("caesar", 5, "Write f(x) that moves each small letter of the text x on by {k} places in the alphabet, round the end.", word, [1, 2, 3, 4, 5, 6, 7, 8, 9, 13],
     lambda x, k: "".join(chr((ord(c) - 97 + k) % 26 + 97) if c.islower() else c for c in x),
     ["''.join(chr((ord(c) - 97 + {k}) % 26 + 97) if c.islower() else c for c in x)", "@a = 'abcdefghijklmnopqrstuvwxyz'\nreturn ''.join(a[(a.index(c) + {k}) % 26] if c in a else c for c in x)",
      "@a = 'abcdefghijklmnopqrstuvwxyz'\nreturn x.translate(str.maketrans(a, a[{k}:] + a[:{k}]))", "@out = ''\nfor c in x:\n    out += chr((ord(c) + {k} - 97) % 26 + 97) if 'a' <= c <= 'z' else c\nreturn out",
      "''.join(chr(ord(c) + {k}) for c in x)", "''.join(chr(ord(c) + {k}) if c.islower() else c for c in x)", "''.join(chr((ord(c) - 97 - {k}) % 26 + 97) if c.islower() else c for c in x)", "''.join(chr((ord(c) - 97 + {k}) % 26 + 97) for c in x)", "x[{k}:] + x[:{k}]", "x.lower()"]),
    ("runs", 4, "Write f(x) that counts the runs of equal neighbours in the text x that are at least {k} long.", word, [1, 2, 3], lambda x, k: runs(x, k),
     ["@from itertools import groupby\nreturn sum(len(list(g)) >= {k} for _, g in groupby(x))", "@n = i = 0\nwhile i < len(x):\n    j = i\n    while j < len(x) and x[j] == x[i]:\n        j += 1\n    n += j - i >= {k}\n    i = j\nreturn n",
      "@import re\nreturn sum(len(m.group()) >= {k} for m in re.finditer(r'(.)\\1*', x))", "@n, run = 0, 0\nfor i, c in enumerate(x):\n    run = run + 1 if i and x[i - 1] == c else 1\n    n += run == {k}\nreturn n",
      "len(set(x)) if {k} == 1 else 0", "sum(x.count(c) >= {k} for c in set(x))", "sum(a == b for a, b in zip(x, x[1:]))", "len(x) // {k}", "@n, run = 0, 0\nfor i, c in enumerate(x):\n    run = run + 1 if i and x[i - 1] == c else 1\n    n += run >= {k}\nreturn n", "len(x)"]),
    ("parts", 3, "Write f(x) that cuts the list x into lists of {k} items; the last may be shorter.", nums, [1, 2, 3, 4, 5, 6], lambda x, k: [x[i:i + k] for i in range(0, len(x), k)],
     ["[x[i:i + {k}] for i in range(0, len(x), {k})]", "@out = []\nwhile x:\n    out.append(x[:{k}])\n    x = x[{k}:]\nreturn out", "[x[{k} * i:{k} * i + {k}] for i in range(-(-len(x) // {k}))]", "[x[:{k}]] + f(x[{k}:]) if x else []",
      "[x[i:i + {k}] for i in range(len(x))]", "[x[i::{k}] for i in range({k})]", "[x[:{k}], x[{k}:]]", "[x[i:i + {k}] for i in range(0, len(x) // {k})]", "[x[i:i + {k} + 1] for i in range(0, len(x), {k})]", "[x]"]),
    ("range_sum", 2, "Write f(x) that returns the sum of the whole numbers from {k} to x, both included, or 0 if x is below {k}.", num, [0, 1, 2, 3, 4, 5, 6, 7, 8, 10], lambda x, k: sum(range(k, x + 1)),
     ["sum(range({k}, x + 1))", "sum(v for v in range({k}, x + 1))", "(x + {k}) * (x - {k} + 1) // 2 if x >= {k} else 0", "@s = 0\nfor v in range({k}, x + 1):\n    s += v\nreturn s",
      "sum(range({k}, x))", "sum(range(x + 1))", "(x + {k}) * (x - {k}) // 2 if x >= {k} else 0", "sum(range({k} + 1, x + 1))", "x - {k}", "(x + {k}) * (x - {k} + 1) // 2"]),
    ("sign", 1, "Write f(x) that returns 'small' for x below {k}, 'large' for x above {k}, else 'equal'.", num, [-9, -6, -3, -1, 0, 1, 2, 4, 6, 9], lambda x, k: "small" if x < k else "large" if x > k else "equal",
     ["'small' if x < {k} else 'large' if x > {k} else 'equal'", "['equal', 'large', 'small'][(x > {k}) - (x < {k})]", "@if x == {k}:\n    return 'equal'\nreturn 'small' if x < {k} else 'large'", "'equal' if x == {k} else 'large' if x > {k} else 'small'",
      "'small' if x < {k} else 'large'", "'large' if x < {k} else 'small' if x > {k} else 'equal'", "'small' if x <= {k} else 'large'", "'equal' if abs(x) == abs({k}) else 'small' if x < {k} else 'large'", "'large' if x > {k} else 'equal'", "'small' if x < 0 else 'large' if x > 0 else 'equal'"]),
    ("dedupe", 4, "Write f(x) that removes from the list x what stood before in it and numbers below {k}, keeping the order.", nums, [-9, -5, -3, -2, -1, 0, 1, 2, 3, 5],
     lambda x, k: [v for i, v in enumerate(x) if v not in x[:i] and v >= k],
     ["[v for i, v in enumerate(x) if v not in x[:i] and v >= {k}]", "[v for v in dict.fromkeys(x) if v >= {k}]", "@out = []\nfor v in x:\n    if v >= {k} and v not in out:\n        out.append(v)\nreturn out", "list(dict.fromkeys(v for v in x if v >= {k}))",
      "list(set(v for v in x if v >= {k}))", "[v for v in x if v >= {k}]", "[v for i, v in enumerate(x) if v not in x[:i] and v > {k}]", "sorted(v for v in set(x) if v >= {k})", "[v for v in dict.fromkeys(x) if v < {k}]", "x"]),
    ("zipped", 3, "Write f(x) that returns pairs (place, number) for the numbers of the list x, counting places from {k}.", nums, [0, 1, 2, 3, 4, 5, 7, 10, 50, 100], lambda x, k: list(enumerate(x, k)),
     ["list(enumerate(x, {k}))", "[(i + {k}, v) for i, v in enumerate(x)]", "list(zip(range({k}, {k} + len(x)), x))", "[({k} + i, x[i]) for i in range(len(x))]",
      "list(enumerate(x))", "[(v, i + {k}) for i, v in enumerate(x)]", "list(zip(range({k}), x))", "list(enumerate(x, {k} + 1))", "[(i * {k}, v) for i, v in enumerate(x)]", "[({k}, v) for v in x]"]),
]


def steps(x, k):
    n = 0
    while x > k:
        x //= 2
        n += 1
    return n


def running(x, k):
    out, s = [], 0
    for v in x:
        s = max(-k, s + v)
        out.append(s)
    return out


def runs(x, k):
    n = i = 0
    while i < len(x):
        j = i
        while j < len(x) and x[j] == x[i]:
            j += 1
        n += j - i >= k
        i = j
    return n


def code(template, k):
    body = template.format(k=k)
    body = body[1:] if body.startswith("@") else "return " + body
    return "def f(x):\n" + "\n".join("    " + line for line in body.split("\n"))


def score(text, reference, k, inputs):
    """share of the inputs on which the answer gives what the reference gives, in value and in type"""
    space = {}
    exec(text, space)
    right = 0
    for x in inputs:
        want = reference(list(x) if isinstance(x, list) else x, k)
        try:
            got = space["f"](list(x) if isinstance(x, list) else x)
            right += type(got) is type(want) and got == want
        except Exception:
            pass
    return right / len(inputs)


def problems():
    for name, difficulty, text, make, params, reference, templates in FAMILIES:
        for k in params:
            rng = random.Random(f"{name}/{k}")
            inputs = [make(rng) for _ in range(TESTS)]
            answers = {}
            for t in templates:
                answers.setdefault(code(t, k), None)
            scored = [(a, score(a, reference, k, inputs)) for a in answers]
            right = [x for x in scored if x[1] == 1.0]
            wrong = [x for x in scored if x[1] < 1.0]
            half = min(max(len(right), 1), max(ANSWERS // 2, ANSWERS - len(wrong)))
            chosen = right[:half] + wrong[:ANSWERS - half]
            if len(chosen) < ANSWERS or not right or not wrong:
                continue
            rng.shuffle(chosen)
            yield f"{name}_{str(k).strip() if str(k).isalnum() or str(k).lstrip('-').isdigit() else ord(str(k))}", difficulty, text.format(k=k), chosen


def write(folder, split, items):
    meta, lines = {}, []
    for pid, difficulty, text, answers in items:
        row = {"difficulty": difficulty, "correct_indices": [], "incorrect_indices": []}
        for a, s in answers:
            row["correct_indices" if s == 1.0 else "incorrect_indices"].append(len(lines))
            lines.append({"instruction": text, "input": "", "output": a, "problem_id": pid, "is_correct": s == 1.0, "score": round(s, 4),
                          "metadata": {"difficulty": difficulty}})
        meta[pid] = row
    with open(os.path.join(folder, split + ".jsonl"), "w", newline="\n") as f:
        for line in lines:
            f.write(json.dumps(line) + "\n")
    with open(os.path.join(folder, split + "_metadata.json"), "w", newline="\n") as f:
        json.dump(meta, f, indent=0)
        f.write("\n")
    return len(items), len(lines)


def main():
    folder = sys.argv[1] if len(sys.argv) > 1 else os.path.dirname(os.path.abspath(__file__))
    os.makedirs(folder, exist_ok=True)
    items = list(problems())
    random.Random("order").shuffle(items)
    cut = len(items) // 10
    for split, part in (("valid", items[:cut]), ("train", items[cut:])):
        n, m = write(folder, split, part)
        print(f"{split}: {n} problems, {m} answers")


if __name__ == "__main__":
    main()
