/* test_text.c: the text form. all_ops.wir holds every form of an op with types written by hand: it must parse
 * (so inference gives those types) and print back to the same bytes. A table of damaged texts says which
 * error each gives. */
#include "ir_test.h"

static char *read_text(Arena *a, const char *name, size_t *len) {
    char *text = NULL;
    Diags *d = diags_open(env_posix());
    cr_assert(file_read_all(env_posix(), a, arena_fmt(a, "%s/tests/ir/%s", WM_SOURCE_DIR, name), 1 << 24,
                            &text, len, d));
    diags_close(d);
    return text;
}

IR_TEST(text, every_op_round_trip) {
    size_t n;
    char *text = read_text(a, "all_ops.wir", &n);
    Graph *g = graph_parse(a, "all_ops.wir", text, n, d);
    cr_assert(g, "%s at %u:%u", d->n ? d->item[0]->text : "", d->item[0]->span[0].loc.line,
              d->item[0]->span[0].loc.col);
    Sbuf b, c;
    sb_init(&b, a);
    graph_print(g, &b, true);
    cr_assert_str_eq(b.s, text);
    Graph *again = graph_parse(a, "again", b.s, b.len, d);
    const char *why = "";
    cr_assert(again && graph_equal(g, again, &why), "%s", why);
    sb_init(&c, a);
    graph_print(g, &c, false);
    cr_assert_null(strstr(c.s, "x.wg"));
    again = graph_parse(a, "again", c.s, c.len, d);
    cr_assert(again && graph_equal(g, again, &why), "%s", why);
    bool seen[NOP] = {false};
    for (uint32_t k = 0; k < g->nnode; k++) seen[g->node[k].op] = true;
    for (int k = 0; k < NOP;
         k++) { /* the text of an element-wise op without attributes is that of any other */
        bool plain = op_info[k].kind == K_EW && op_info[k].nattr == 0;
        cr_expect(seen[k] || plain, "%s is not in all_ops.wir", op_info[k].name);
    }
    /* any change of a node is a difference */
    again->node[44].section = 1;
    cr_assert(!graph_equal(g, again, &why) && strstr(why, "labels"));
    again->node[44].section = 0;
    again->floatlist[1] = 0.25;
    cr_assert(!graph_equal(g, again, &why) && strstr(why, "values"));
}

IR_TEST(text, planned_labels) {
    static const char text[] =
        "wir 1\ndim micro=2 \"odd name\"=3 \"graph\"=1\ngraph \"p\" stage=planned phase=val micro=micro "
        "state=64 work=4096 {\n"
        "  %0 = input name=\"x\\xff\" : f32[\"odd name\",\"graph\"] at=1+64~128 section=1\n"
        "  %1 = neg %0 : f32[\"odd name\",\"graph\"] at=-1+0~8 bwd remat section=3 group=7 origin=%2 "
        "ws=128+256 @\"p\"\n"
        "  %2 = neg %1 : f32[\"odd name\",\"graph\"] at=0+0\n}\n";
    Graph *g = graph_parse(a, "t", text, sizeof text - 1, d);
    cr_assert(g, "%s", d->n ? d->item[0]->text : "");
    Sbuf b;
    sb_init(&b, a);
    graph_print(g, &b, false);
    cr_assert_str_eq(b.s, text);
    cr_assert(g->node[1].origin == 2 && g->value[0].stride == 128 && g->node[1].ws_off == 256);
}

/* Each line stands alone in a graph after the operands below; the error names what is wrong. */
#define HEAD                                                                                                 \
    "wir 1\ndim micro=2 a=3 b=4 k=4 v=7 s=6 d=4 q=4 h=2 o=3 e=0 big=1000000 big2=1000000 big3=1000000 "      \
    "huge=1000000000 huge2=1000000000\n"                                                                     \
    "graph \"g\" stage=math phase=train micro=micro {\n"                                                     \
    "%0 = input name=\"x\" : f32[a,b]\n%1 = input name=\"m\" : bool[a,b]\n%2 = input name=\"t\" : "          \
    "i32[a,b]\n"                                                                                             \
    "%3 = input name=\"d\" : f64[a,b]\n%4 = input name=\"w\" : f32[v,k]\n%5 = input name=\"q\" : "           \
    "f32[a,s,q,d]\n"                                                                                         \
    "%6 = input name=\"k\" : f32[a,s,h,d]\n%7 = input name=\"h\" : f32[a,b,k]\n%8 = input name=\"ce\" : "    \
    "f32[a,b]\n"                                                                                             \
    "%9 = input name=\"ta\" : i32[a]\n%10 = input name=\"xa\" : f32[a]\n%11 = input name=\"k3\" : "          \
    "f32[a,s,o,d]\n"
static const struct {
    const char *text, *error;
} wrong[] = {
    {"%12 = add %0, %3 : f32[a,b]", "cast one"},
    {"%12 = add %0, %1 : f32[a,b]", "real"},
    {"%12 = add %0, %4 : f32[a,b]", "neither has all dims"},
    {"%12 = add %0 : f32[a,b]", "1 operands; 2 are needed"},
    {"%12 = add %0, %10 : f32[a]", "f32[a] is written"},
    {"%12 = exp %2 : f32[a,b]", "real"},
    {"%12 = and %0, %1 : bool[a,b]", "bool is needed"},
    {"%12 = not %0 : bool[a,b]", "bool is needed"},
    {"%12 = lt %1, %1 : bool[a,b]", "real"},
    {"%12 = eq %1, %0 : bool[a,b]", "cast one"},
    {"%12 = where %0, %0, %0 : f32[a,b]", "bool is needed"},
    {"%12 = where %1, %0, %3 : f32[a,b]", "branches"},
    {"%12 = cast %0 : f32[a,b]", "to is missing"},
    {"%12 = expand %0 dims=[a] : f32[a,b]", "already has dim a"},
    {"%12 = expand %0 dims=[k,k] : f32[k,a,b]", "twice"},
    {"%12 = sum %0 over=[k] : f32[a,b]", "no dim k"},
    {"%12 = sum %1 over=[a] : f32[b]", "real"},
    {"%12 = matmul %0, %10 over=[b] : f32[a]", "no dim b"},
    {"%12 = matmul %0, %3 over=[b] : f32[a]", "cast one"},
    {"%12 = gather %4, %0 cls=v : f32[a,b,k]", "i32 is needed"},
    {"%12 = gather %4, %2 cls=a : f32[a,b,k]", "no dim a"},
    {"%12 = gather %7, %9 cls=b : f32[a,k]", "twice"},
    {"%12 = scatter_add %0, %2 cls=a over=[a] : f32[a,b]", "already has dim a"},
    {"%12 = scatter_add %10, %2 cls=v over=[a] : f32[v]", "no dim b"},
    {"%12 = scatter_add %0, %9 cls=v over=[b] : f32[v]", "no dim b"},
    {"%12 = shift %0 dim=k by=1 fill=0 : f32[a,b]", "no dim k"},
    {"%12 = shift %0 dim=b by=1 add=[h] fill=0 : f32[a,b,h]", "factor 0 numbers"},
    {"%12 = shift %0 dim=b by=9223372036854775807 fill=0 : f32[a,b]", "2^40"},
    {"%12 = shift_grad %0 dim=b by=1 add=[h] factor=[1] : f32[a,b]", "no dim h"},
    {"%12 = shift_grad %0 dim=b by=1 add=[b] factor=[1] : f32[a]", "itself"},
    {"%12 = select %0 dim=b index=4 : f32[a]", "outside"},
    {"%12 = select %0 dim=b index=-1 : f32[a]", "outside"},
    {"%12 = place %0 dim=b index=0 : f32[b,a]", "already has"},
    {"%12 = stack %0 dim=h : f32[h,a,b]", "1 operands for dim h of size 2"},
    {"%12 = stack %0, %3 dim=h : f32[h,a,b]", "is needed"},
    {"%12 = stack dim=e : f32[e]", "no operands"},
    {"%12 = transpose %0 to=[a] : f32[a]", "cannot become"},
    {"%12 = rope %5, %0 along=s over=d : f32[a,s,q,d]", "f32[s,d] is needed"},
    {"%12 = rope %5, %0 along=a over=o : f32[a,s,q,d]", "no dim o"},
    {"%12, %13 = attention %5, %6, %11 along=s over=d : f32[a,s,q,d], f32[a,s,q]", "no dim h"},
    {"%12, %13 = attention %5, %11, %11 along=s over=d : f32[a,s,q,d], f32[a,s,q]", "share"},
    {"%12, %13 = attention %5, %0, %6 along=s over=d : f32[a,s,q,d], f32[a,s,q]", "no dim"},
    {"%12, %13, %14 = attention_grad %5, %6, %6, %5, %0, %5 along=s over=d : f32[a,s,q,d], f32[a,s,h,d], "
     "f32[a,s,h,d]",
     "f32[a,s,q] is needed"},
    {"%12 = cross_entropy %4, %2 cls=v : f32[k]", "neither"},
    {"%12 = cross_entropy %4, %0 cls=v : f32[k]", "i32"},
    {"%12 = entropy %0 cls=v : f32[a,b]", "no dim v"},
    {"%12 = kl %0, %3 cls=b : f32[a]", "cast one"},
    {"%12 = argmax %2 over=b base=0 : f32[a]", "real"},
    {"%12, %13, %14, %15 = linear_ce %7, %4, %9 over=[k] cls=v : f32[a,b], f32[a,b], f32[a,b], i32[a,b]",
     "i32[a,b] is needed"},
    {"%12, %13, %14, %15 = linear_ce %7, %0, %2 over=[k] cls=v : f32[a,b], f32[a,b], f32[a,b], i32[a,b]",
     "f32[v,k] is needed"},
    {"%12, %13, %14, %15 = linear_ce %7, %4, %2 over=[] cls=v : f32[a,b], f32[a,b], f32[a,b], i32[a,b]",
     "over is empty"},
    {"%12, %13 = linear_ce_grad %7, %4, %2, %8, %8, %8 over=[k] cls=v row=[a,b] : f32[a,b,k], f32[v,k]",
     "5 or 7"},
    {"%12, %13 = linear_ce_grad %7, %4, %2, %8, %8 over=[k] cls=v row=[q] : f32[a,b,k], f32[v,k]",
     "row holds"},
    {"%12, %13, %14, %15, %16, %17 = linear_ce_fb %7, %4, %2, %10 over=[k] cls=v row=[a,b] : f32[a,b], "
     "f32[a,b], f32[a,b], i32[a,b], f32[a,b,k], f32[v,k]",
     "f32[a,b] is needed"},
    {"%12, %13, %14 = linear_kl %7, %4, %4, %4 over=[k] over2=[k] cls=v : f32[a,b], f32[a,b], f32[a,b]",
     "has dim v"},
    {"%12, %13, %14, %15 = linear_kl_grad %7, %4, %7, %4, %8, %8, %10 over=[k] over2=[k] cls=v row=[a,b] : "
     "f32[a,b,k], f32[v,k], f32[a,b,k], f32[v,k]",
     "f32[a,b] is needed"},
    {"%12 = quantile %0, %1 q=1.5 over=[b] : f32[a]", "[0, 1]"},
    {"%12 = quantile %0, %0 q=0.5 over=[b] : f32[a]", "bool is needed"},
    {"%12 = first %0 over=b : bool[a,b]", "bool is needed"},
    {"%12 = last %1 over=k : bool[a,b]", "no dim k"},
    {"%12 = cumsum %0 over=k : f32[a,b]", "no dim k"},
    {"%12 = scan %0, %0, %0, %1 over=b : f32[a,b]", "already has dim b"},
    {"%12 = scan %10, %0, %7, %1 over=b : f32[a,b]", "mask"},
    {"%12, %13, %14 = scan_grad %10, %0, %0, %1, %10, %0 over=b : f32[a], f32[a,b], f32[a,b]", "is needed"},
    {"%12 = shuffle %0, %0 over=b stream=1 : f32[a,b]", "bool is needed"},
    {"%12 = micro_sum %1 : bool[a,b]", "real"},
    {"%12 = micro_slice %0 : f32[a,b]", "no dim micro"},
    {"%12 = micro_stack %0 : f32[a,b]", "f32[micro,a,b]"},
    {"%12 = const value=1 : f32[a]", "f32[] is needed"},
    {"%12 = scalar name=\"step\" : f32[]", "f64[] is needed"},
    {"%12 = iota dim=a base=0 : f32[b]", "f32[a] is needed"},
    {"%12 = tensor values=[1,2] : f32[a]", "2 values"},
    {"%12 = param model=\"m\" name=\"n\" hf=\"\" axes=\"\" init=\"\" opt=0 decay=true stream=1 : i32[a]",
     "must be real"},
    {"%12 = uniform stream=1 : bool[a]", "must be real"},
    {"%12 = normal : f32[a]", "stream is missing"},
    {"%12 = rope_table along=s over=o theta=1 base=0 : f32[s,o]", "odd size"},
    {"%12 = state name=\"s\" role=\"user\" : f32[]", "init is missing"},
    {"%12 = input name=\"x\" : f32[huge,huge2]", "2^48"},
    {"%12 = input name=\"x\" : f32[big,big2,big3]", "2^48"},
    {"%12 = input name=\"x\" : f32[e,huge,huge2]", "2^48"},
    {"%12 = input name=\"x\" : f32[a,a]", "twice"},
    {"%12 = input name=\"x\" : f32[nope]", "not in the dim line"},
    {"%12 = input name=3 : f32[a]", "a string"},
    {"%12 = input name=\"x\" name=\"x\" : f32[a]", "twice"},
    {"%12 = input colour=\"x\" : f32[a]", "no attribute"},
    {"%12 = input name=\"x : f32[a]", "without an end"},
    {"%12 = input name=\"\\q\" : f32[a]", "escape"},
    {"%12 = input name=\"\\x00\" : f32[a]", "escape"},
    {"%13 = neg %0 : f32[a,b]", "the next value is %12"},
    {"%12 = neg %12 : f32[a,b]", "not defined above"},
    {"%12 = neg %99999999999 : f32[a,b]", "expected a value"},
    {"%12 = nag %0 : f32[a,b]", "expected an op"},
    {"%12 = neg %0 : f31[a,b]", "expected a dtype"},
    {"%12 = neg %0 : f32[a,b] at=5+0", "no arena 5"},
    {"%12 = neg %0 : f32[a,b] section=256", "out of range"},
    {"%12 = neg %0 : f32[a,b] origin=%13", "does not exist"},
    {"%12, %13 = neg %0 : f32[a,b], f32[a,b]", "has 1 results"},
    {"%12 = neg %0, : f32[a,b]", "expected an operand"},
    {"result loss \"l\" %12", "not defined above"},
    {"opt adamw lr=%0 b1=x", "expected a number"},
    {"note 5", "a string"},
    {"} {", "expected the end"},
    {"$", "no such character"},
};
IR_TEST(text, wrong) {
    for (size_t k = 0; k < WM_LEN(wrong); k++) {
        Diags *e = diags_open(env_posix());
        char *text = arena_fmt(a, "%s%s\n}\n", HEAD, wrong[k].text);
        Graph *g = graph_parse(a, "w", text, strlen(text), e);
        cr_expect_null(g, "accepted: %s", wrong[k].text);
        cr_expect(e->n == 1 && e->item[0]->code == P002, "%u errors: %s", e->n, wrong[k].text);
        if (e->n)
            cr_expect(strstr(e->item[0]->text, wrong[k].error), "%s\n  says: %s", wrong[k].text,
                      e->item[0]->text);
        diags_close(e);
    }
    (void)d;
}

/* Every prefix of a good text is refused, and no byte changed to another makes the parser misbehave. */
IR_TEST(text, cut_and_changed) {
    size_t n;
    char *text = read_text(a, "all_ops.wir", &n);
    (void)d;
    for (size_t k = 0; k + 2 < n; k += 7) {
        Arena *b = arena_open(env_posix(), arena_guard(a));
        Diags *e = diags_open(env_posix());
        cr_assert_null(graph_parse(b, "w", text, k, e), "cut at %zu", k);
        char *t = arena_str(b, text, n);
        t[k] = (char)(t[k] ^ (1 << (k % 8)));
        graph_parse(b, "w", t, n, e);
        diags_close(e);
        arena_close(b);
    }
}
