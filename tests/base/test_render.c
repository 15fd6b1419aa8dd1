/* The renderer: carets under what they mean, whatever the width of the letters; fixes; JSON. */
#include <criterion/criterion.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/base.h"

static Loc at(const char *file, const char *text, uint32_t line, const char *what) {
    const char *s = text;
    for (uint32_t i = 1; i < line; i++) s = strchr(s, '\n') + 1;
    const char *found = strstr(s, what);
    return (Loc){file, line, (uint32_t)(found - s) + 1, (uint32_t)(found - text), (uint32_t)strlen(what)};
}

static const char *rendered(const Diags *d, Arena *a, bool color) {
    Sbuf b;
    sb_init(&b, a);
    sb_str(&b, "");
    diags_render(d, &b, color);
    return b.s ? b.s : "";
}

static void expect_text(const Diags *d, const char *want) {
    Arena *a = arena_open(env_posix(), NULL);
    const char *got = rendered(d, a, false);
    cr_expect_str_eq(got, want, "got:\n%s\nwant:\n%s", got, want);
    arena_close(a);
}

Test(render, whole) {
    const char *text = "graph mine\nmetric m = mean(td)                # \xed\x8f\x89\xea\xb7\xa0\n";
    Diags *d = diags_open(env_posix());
    diag_source(d, "mine.wg", text, strlen(text));
    Diag *g = diag_add(d, E030, at("mine.wg", text, 2, "mean(td)"), "mean over `seq` needs `where=`");
    diag_label(g, "td is f32[batch, seq]");
    diag_help(d, g, "average the answer tokens");
    Loc fix = at("mine.wg", text, 2, ")");
    fix.len = 0;
    diag_fix(d, g, fix, true, ", where=resp");
    diag_note(d, g, "`where=true` counts every position");
    diag_add(d, W062, at("mine.wg", text, 2, "m"), "`m` is never used");
    expect_text(d, "error[E030]: mean over `seq` needs `where=`\n"
                   " --> mine.wg:2:12\n"
                   "  |\n"
                   "2 | metric m = mean(td)                # \xed\x8f\x89\xea\xb7\xa0\n"
                   "  |            ^^^^^^^^ td is f32[batch, seq]\n"
                   "help: average the answer tokens\n"
                   "  |\n"
                   "2 | metric m = mean(td, where=resp)                # \xed\x8f\x89\xea\xb7\xa0\n"
                   "  |                   ++++++++++++\n"
                   "  = note: `where=true` counts every position\n"
                   "\n"
                   "warning[W062]: `m` is never used\n"
                   " --> mine.wg:2:1\n"
                   "  |\n"
                   "2 | metric m = mean(td)                # \xed\x8f\x89\xea\xb7\xa0\n"
                   "  | ^\n"
                   "\n"
                   "1 error, 1 warning\n");
    diags_close(d);
}

Test(render, width_of_letters_and_tabs) {
    /* two Korean letters (two columns each), a tab (four), a combining accent (none) */
    const char *text = "\tx = \"\xed\x8f\x89\xea\xb7\xa0\" \te\xcc\x81 bad\n";
    Diags *d = diags_open(env_posix());
    diag_source(d, "k.wg", text, strlen(text));
    Diag *g = diag_add(d, E010, at("k.wg", text, 1, "bad"), "unknown name `bad`");
    diag_fix(d, g, at("k.wg", text, 1, "bad"), false, "good");
    diag_add(d, E010, at("k.wg", text, 1, "\xed\x8f\x89\xea\xb7\xa0"), "wide");
    expect_text(d, "error[E010]: unknown name `bad`\n"
                   " --> k.wg:1:20\n"
                   "  |\n"
                   "1 |     x = \"\xed\x8f\x89\xea\xb7\xa0\"     e\xcc\x81 bad\n"
                   "  |                      ^^^\n"
                   "help: write it like this\n"
                   "  |\n"
                   "1 |     x = \"\xed\x8f\x89\xea\xb7\xa0\"     e\xcc\x81 good\n"
                   "  |                      ~~~~\n"
                   "\n"
                   "error[E010]: wide\n"
                   " --> k.wg:1:7\n"
                   "  |\n"
                   "1 |     x = \"\xed\x8f\x89\xea\xb7\xa0\"     e\xcc\x81 bad\n"
                   "  |          ^^^^\n"
                   "\n"
                   "2 errors\n");
    diags_close(d);
}

Test(render, several_spans_and_files) {
    const char *a = "graph a\ndim k = 4\n\n\n\n\n\n\n\nx = y\n", *b = "module b\ndim k = 5\n";
    Diags *d = diags_open(env_posix());
    diag_source(d, "a.wg", a, strlen(a));
    diag_source(d, "b.wg", b, strlen(b));
    Diag *g = diag_add(d, E024, at("a.wg", a, 10, "y"), "two sizes for `k`");
    diag_span(d, g, at("b.wg", b, 2, "5"), "5 here");
    diag_span(d, g, at("a.wg", a, 2, "4"), "4 here");
    expect_text(d, "error[E024]: two sizes for `k`\n"
                   "  --> a.wg:10:5\n"
                   "   |\n"
                   " 2 | dim k = 4\n"
                   "   |         - 4 here\n"
                   "...\n"
                   "10 | x = y\n"
                   "   |     ^\n"
                   "  ::: b.wg:2:9\n"
                   "   |\n"
                   " 2 | dim k = 5\n"
                   "   |         - 5 here\n"
                   "\n"
                   "1 error\n");
    diags_close(d);
}

Test(render, places_without_text) {
    Diags *d = diags_open(env_posix());
    diag_add(d, R007, NOLOC, "unknown command");
    diag_add(d, C002, (Loc){.file = "c.yaml", .line = 3, .col = 2}, "unknown key");
    diag_add(d, D002, (Loc){.file = "gone"}, "missing");
    expect_text(d, "error[R007]: unknown command\n\nerror[C002]: unknown key\n --> c.yaml:3:2\n\n"
                   "error[D002]: missing\n --> gone\n\n3 errors\n");
    diags_close(d);
}

Test(render, ends_of_lines_and_removal) {
    const char *text = "a = b\r\nc = d";
    Diags *d = diags_open(env_posix());
    diag_source(d, "e.wg", text, strlen(text));
    diag_add(d, E003, (Loc){"e.wg", 1, 6, 5, 0}, "end of line");
    Diag *g = diag_add(d, E003, (Loc){"e.wg", 1, 5, 4, 8}, "over two lines");
    diag_fix(d, g, (Loc){"e.wg", 2, 2, 8, 2}, true, "%s", "");
    diag_add(d, E003, (Loc){"e.wg", 2, 99, 99, 5}, "beyond");
    diag_add(d, E003, (Loc){"e.wg", 9, 1, 99, 5}, "no such line");
    expect_text(d, "error[E003]: end of line\n --> e.wg:1:6\n  |\n1 | a = b\n  |      ^\n\n"
                   "error[E003]: over two lines\n --> e.wg:1:5\n  |\n1 | a = b\n  |     ^\n"
                   "help: write it like this\n  |\n2 | c = d\n  |  -- remove\n\n"
                   "error[E003]: beyond\n --> e.wg:2:99\n  |\n2 | c = d\n  |      ^\n\n"
                   "error[E003]: no such line\n --> e.wg:9:1\n\n4 errors\n");
    diags_close(d);
}

Test(render, inserted_lines) {
    const char *text = "graph g\nx = 1\n";
    Diags *d = diags_open(env_posix());
    diag_source(d, "i.wg", text, strlen(text));
    Diag *g = diag_add(d, E010, at("i.wg", text, 2, "x"), "no `mean2`");
    diag_help(d, g, "import it");
    Loc top = at("i.wg", text, 2, "x");
    top.len = 0;
    diag_fix(d, g, top, false, "from s import t\n");
    expect_text(d, "error[E010]: no `mean2`\n --> i.wg:2:1\n  |\n2 | x = 1\n  | ^\nhelp: import it\n  |\n"
                   "2 | from s import t\n  | +++++++++++++++\n3 | x = 1\n\n1 error\n");
    diags_close(d);
}

Test(render, nothing_reaches_the_terminal_unescaped) {
    const char *text = "a = \"\033[31m\a\xff\xe2\x80\xae\" # \177\n";
    Diags *d = diags_open(env_posix());
    diag_source(d, "\033.wg", text, strlen(text));
    Diag *g = diag_add(d, E002, (Loc){"\033.wg", 1, 5, 4, 11}, "found \033[2J here\nand \r there");
    diag_label(g, "label \033");
    diag_help(d, g, "help \033\nmore");
    diag_note(d, g, "note \033");
    diag_fix(d, g, (Loc){"\033.wg", 1, 5, 4, 1}, false, "\033'");
    Arena *a = arena_open(env_posix(), NULL);
    const char *out = rendered(d, a, false);
    for (const char *s = out; *s; s++)
        cr_expect((unsigned char)*s >= 0x20 ? *s != 0x7f && (unsigned char)*s != 0xff : *s == '\n',
                  "byte %02x", (unsigned char)*s);
    cr_expect(!strstr(out, "\xe2\x80\xae"), "a letter that turns the direction of writing");
    Sbuf b;
    sb_init(&b, a);
    diags_render_json(d, &b);
    for (const char *s = b.s; *s; s++) cr_expect((unsigned char)*s >= 0x20 || *s == '\n');
    cr_expect(text_utf8_ok(b.s, b.len, NULL));
    arena_close(a);
    diags_close(d);
}

Test(render, colors_only_if_asked) {
    const char *text = "a = b\n";
    Diags *d = diags_open(env_posix());
    diag_source(d, "c.wg", text, strlen(text));
    diag_add(d, E010, at("c.wg", text, 1, "b"), "unknown");
    Arena *a = arena_open(env_posix(), NULL);
    cr_expect(!strchr(rendered(d, a, false), '\033'));
    const char *plain = rendered(d, a, false), *color = rendered(d, a, true);
    Sbuf b;
    sb_init(&b, a);
    for (const char *s = color; *s; s++) {
        if (*s == '\033')
            s = strchr(s, 'm');
        else
            sb_chr(&b, *s);
    }
    cr_expect(strchr(color, '\033') != NULL);
    cr_expect_str_eq(b.s, plain);
    arena_close(a);
    diags_close(d);
}

/* A long line is cut around the caret, which still stands under the word, in ASCII and in Korean. */
Test(render, long_lines) {
    for (int wide = 0; wide < 2; wide++)
        for (uint32_t before = 0; before < 40000; before = before * 3 + 7) {
            const char *unit = wide ? "\xed\x8f\x89" : "x";
            size_t u = strlen(unit), len = before * u + 3 + 5000 * u;
            char *text = malloc(len + 1);
            for (size_t i = 0; i < before; i++) memcpy(text + i * u, unit, u);
            memcpy(text + before * u, "BAD", 3);
            for (size_t i = 0; i < 5000; i++) memcpy(text + before * u + 3 + i * u, unit, u);
            text[len] = 0;
            Diags *d = diags_open(env_posix());
            diag_source(d, "l.wg", text, len);
            diag_add(d, E010, (Loc){"l.wg", 1, (uint32_t)(before * u) + 1, (uint32_t)(before * u), 3},
                     "here");
            Arena *a = arena_open(env_posix(), NULL);
            const char *line = strstr(rendered(d, a, false), "1 | ");
            const char *marks = strchr(line, '\n') + 1, *bad = strstr(line, "BAD"),
                       *caret = strstr(marks, "^^^");
            cr_assert(bad && bad < marks && caret);
            cr_expect_eq(text_width(line, (size_t)(bad - line)), (int)(caret - marks), "%u letters before",
                         before);
            cr_expect(text_width(line, (size_t)(marks - line)) < 140);
            arena_close(a);
            diags_close(d);
            free(text);
        }
}

Test(render, errors_beyond_the_limit_are_counted) {
    Diags *d = diags_open(env_posix());
    for (int i = 0; i < 25; i++) diag_add(d, E010, NOLOC, "one");
    Arena *a = arena_open(env_posix(), NULL);
    cr_expect(strstr(rendered(d, a, false), "25 errors (20 shown)\n") != NULL);
    arena_close(a);
    diags_close(d);
}

Test(render, json) {
    const char *text = "a = f(\n  b)\n";
    Diags *d = diags_open(env_posix());
    diag_source(d, "j.wg", text, strlen(text));
    Diag *g = diag_add(d, E010, (Loc){"j.wg", 1, 5, 4, 7}, "a \"quote\" \\ and \t tab");
    diag_label(g, "\xed\x8f\x89");
    diag_span(d, g, at("j.wg", text, 2, "b"), "second");
    diag_help(d, g, "help");
    diag_note(d, g, "first");
    diag_fix(d, g, at("j.wg", text, 2, "b"), true, "c");
    diag_add(d, W062, NOLOC, "nowhere");
    Arena *a = arena_open(env_posix(), NULL);
    Sbuf b;
    sb_init(&b, a);
    diags_render_json(d, &b);
    char *second = strchr(b.s, '\n') + 1;
    json_t *j = json_loadb(b.s, (size_t)(second - b.s), 0, NULL), *k = json_loads(second, 0, NULL);
    cr_assert(j && k);
    cr_expect_str_eq(json_string_value(json_object_get(j, "code")), "E010");
    cr_expect_str_eq(json_string_value(json_object_get(j, "level")), "error");
    cr_expect_str_eq(json_string_value(json_object_get(j, "text")), "a \"quote\" \\ and \t tab");
    cr_expect_str_eq(json_string_value(json_object_get(j, "label")), "\xed\x8f\x89");
    json_t *end = json_object_get(j, "end"), *fix = json_object_get(j, "fix");
    cr_expect_eq(json_integer_value(json_object_get(end, "line")), 2);
    cr_expect_eq(json_integer_value(json_object_get(end, "column")), 5);
    cr_expect_str_eq(json_string_value(json_object_get(fix, "text")), "c");
    cr_expect(json_is_true(json_object_get(fix, "sure")));
    cr_expect_eq(json_array_size(json_object_get(j, "spans")), 1u);
    cr_expect(json_is_null(json_object_get(k, "file")) && json_is_null(json_object_get(k, "fix")));
    cr_expect_str_eq(json_string_value(json_object_get(k, "level")), "warning");
    json_decref(j);
    json_decref(k);
    arena_close(a);
    diags_close(d);
}
