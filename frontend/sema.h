/* sema.h: what the files of the semantic half share; private to frontend/.
 *
 * One walker (eval) turns an expression of the syntax tree into a symbolic value (Val) while it appends nodes
 * to the graph: what is known when compiling stays a constant, what is not becomes a tensor. Names are bound
 * lazily, so the order of statements means nothing and a cycle is seen when a name that is being worked out
 * is asked for again. After a mistake the value is VK_POISON, which passes through everything without a
 * second message. */
#ifndef WM_SEMA_H
#define WM_SEMA_H

#include "frontend/ast.h"
#include "frontend/frontend.h"

typedef struct Cx Cx;
typedef struct Module Module;
typedef struct Inst Inst;
typedef struct Owner Owner;
typedef struct Stack Stack;
typedef struct Val Val;
typedef struct Scope Scope;

enum {
    MAX_CALLS = 64,
    MAX_EVAL_DEPTH = 600,
    MAX_EVALS = 1 << 23,
    MAX_GRAPH_NODES = 1 << 20,
    MAX_GRAPH_DIMS = 4096,
    IGNORE_TOKEN = -100
};

/* ---- values */
typedef enum { LT_F32, LT_INT, LT_BOOL, LT_TOKEN, LT_STR, LT_SCOPE } LType;
typedef enum {
    VK_POISON,
    VK_CONST,
    VK_TENSOR,
    VK_DIM,
    VK_LIST,
    VK_AFFINE,
    VK_OPTIM,
    VK_INIT,
    VK_MODEL,
    VK_METHOD,
    VK_KIND,
    VK_BLOCK,
    VK_STACK,
    VK_EACH,
    VK_DEF
} ValKind;
typedef struct {
    Module *mod;
    const Stmt *st;
    Owner *own;
} DeclRef; /* own: the model whose def it is */
typedef struct {
    const char *kind;
    Val *lr;
    double b1, b2, eps, wd, momentum;
    const char *no_decay;
    Loc loc;
} OptRec;
typedef struct {
    const char *kind;
    double a, b;
} InitRec; /* normal: mean, std; uniform: lo, hi */
struct Val {
    ValKind kind;
    LType t;                /* VK_CONST, VK_TENSOR */
    bool grad;              /* a trained parameter reaches it */
    bool nll;               /* a cross-entropy reaches it (W060) */
    bool weighted, counted; /* a cross-entropy times a weight, perhaps summed; a count (W061) */
    double num;             /* VK_CONST: numbers, bools, tokens */
    const char *str;        /* VK_CONST: strings and scopes; VK_METHOD: the name */
    ValueId v;              /* VK_TENSOR */
    DimId dim;              /* VK_DIM */
    Loc loc;                /* the expression that it came from */
    union {
        struct {
            Val *item;
            uint32_t n;
        } list;
        struct {
            Val *a, *b;
        } affine; /* a * carry + b */
        OptRec *opt;
        InitRec init;
        Inst *inst;   /* VK_MODEL, VK_METHOD */
        DeclRef decl; /* VK_KIND, VK_BLOCK, VK_DEF */
        Stack *stack; /* VK_STACK, VK_EACH */
    } u;
};

/* ---- names */
typedef enum { TODO, BUSY, READY } Progress;
typedef struct {
    const char *name;
    const Stmt *let;
    Progress at;
    Val v;
} Binding; /* let NULL: given */
typedef struct {
    Binding *item;
    uint32_t n, cap;
} Frame;
/* Names are looked for in the frame, the members of the owner, the arguments of its model, the module (NULL:
 * the graph), and for dims in the scope of the caller. */
struct Scope {
    Frame *frame;
    Owner *own;
    Module *mod;
    Inst *inst;
    const Scope *caller;
};

typedef struct {
    const char *name;
    Module *mod;
    const Stmt *st;
    bool imported;
    Loc loc;
} Decl; /* mod: declares it */
struct Module {
    AstFile *ast;
    Decl *decl;
    uint32_t n, cap;
    bool loading;
};

/* One name of the graph. level: 0 in the file at the bottom of `extends`. */
typedef struct {
    const char *name;
    StmtKind kind; /* S_IMPORT for what a module gives */
    const Stmt *st;
    AstFile *file;
    Module *mod; /* S_IMPORT: the module that declares it; st its statement */
    int level;
    bool open, used, hidden_import;
    Loc loc;
    Progress at;
    Val v;
    Inst *inst; /* S_INSTANCE */
} Entry;
typedef struct {
    const char *model, *pattern;
    const Stmt *st;
    int level, row;
    Loc loc;
    bool hit;
} TrainGroup;

/* ---- dims: beside Graph.dim, what the language knows of them */
typedef struct {
    const char *plain, *owner;
    int64_t base;
    const char *const *coord;
    Loc loc;
} DimInfo;

/* ---- models */
typedef struct {
    const Stmt *st;
    Progress at;
    Val v;
} Cached;
typedef struct {
    const char *name;
    DimId dim;
} CalledDim;
struct Owner {
    Inst *inst;
    Module *mod;
    const Stmt *decl;
    const char *prefix[2]; /* "layers.3." under either name */
    const char *path;
    Cached **member;
    uint32_t n, cap;
};
struct Stack {
    Owner *own;
    const Stmt *st;
    bool single, has_dim;
    DimId dim;
    Owner **copy;
    uint32_t n;
};
typedef struct {
    const char *name;
    const Stmt *st;
    Owner *own;
    int row;
    bool decay;
} ParamRef;
struct Inst {
    const char *name;
    Module *mod;
    const Stmt *decl, *st;  /* `model KIND {`, and the statement that makes it */
    const ModelSource *src; /* NULL: none */
    bool frozen, second_known;
    int second; /* which of the two names its file has */
    Owner *top;
    Frame arg;   /* parameters of the model */
    Frame given; /* other named arguments: configs, sizes, in tests params */
    Cached **cached;
    uint32_t ncached, cached_cap; /* configs, constants and dims by statement */
    Decl **setting;
    uint32_t nsetting, setting_cap; /* configs and dims of its module and of those it imports */
    CalledDim *called;
    uint32_t ncalled, called_cap;
    ParamRef *param;
    uint32_t nparam, param_cap;
    bool walked;
};

struct Cx {
    Arena *a;
    Graph *g;
    Diags *d;
    const LowerOptions *o;
    AstFile **file;
    uint32_t nfile, file_cap; /* every file read */
    Module **module;
    uint32_t nmodule, module_cap;
    AstFile **chain;
    uint32_t nchain, chain_cap; /* the graph first, its bases after it */
    Entry *entry;
    uint32_t nentry, entry_cap;
    StrMap *entry_of; /* name to its index */
    const Stmt **misc;
    int *misc_level;
    uint32_t nmisc, misc_cap, misc_level_cap; /* metric names, plan, adapt */
    TrainGroup *train;
    uint32_t ntrain, train_cap;
    const Stmt *clip, *best;
    int clip_level, best_level;
    DimInfo *dim;
    uint32_t dim_cap;
    Inst **inst;
    uint32_t ninst, inst_cap;
    Scope graph_scope;
    Frame *override; /* in-file tests: names that are replaced */
    bool testing, sizes_assumed;
    int quiet; /* > 0: messages are dropped */
    int depth;
    uint32_t nevals; /* expressions inside each other, and in all */
    struct {
        const char *name;
        const Stmt *st;
        const Owner *own;
        Loc loc;
    } call[MAX_CALLS];
    int ncall;
    const char *binding;
    int ndraw;       /* for the streams of random numbers */
    ValueId present; /* NOVALUE until it is needed */
    Diag scratch;
};

/* ---- check.c: messages and values */
Diag *sema_error(Cx *cx, Code code, Loc loc, const char *fmt, ...) WM_PRINTF(4, 5);
void sema_warn(Cx *cx, Code code, Loc loc, const char *fmt, ...) WM_PRINTF(4, 5);
void sema_span(Cx *cx, Diag *g, const Val *v); /* below the message: the operand with its type */
Val val_poison(void);
/* Reports and returns poison. */
Val val_error(Cx *cx, Code code, Loc loc, const char *fmt, ...) WM_PRINTF(4, 5);
Val val_num(double v, bool is_int);
Val val_bool(bool b);
Val val_str(const char *s);
Val val_token(double v);
Val val_scope(const char *s);
Val val_tensor(ValueId v, LType t, bool grad);
const char *val_text(Cx *cx, const Val *v);   /* "f32[batch, seq]", "the number 3", "a model" */
const char *dims_text(Cx *cx, const Type *t); /* "[batch, seq]", without micro */
bool val_is_number(const Val *v);             /* a constant number or bool */
bool val_whole(const Val *v, int64_t *n);
const char *name_nearest(Cx *cx, const Scope *sc, const char *name);
bool name_reserved(const char *name);
bool check_name(Cx *cx, const char *name, Loc loc); /* E014 */
Val lift(Cx *cx, Val v);     /* dims become the tensor of their coordinates; logits are E033 */
Val lift_any(Cx *cx, Val v); /* the same, logits allowed */
bool is_logits(const Cx *cx, const Val *v);
const Type *val_type(const Cx *cx, const Val *v); /* of a tensor */

/* ---- dims.c */
DimId dim_make(Cx *cx, const char *plain, const char *owner, int64_t size, int64_t base,
               const char *const *coord, Loc loc);
bool dim_plain(const Cx *cx, const char *name, DimId *d); /* the one of that plain name in the graph */
bool dim_in(const Cx *cx, const Type *t, const char *name,
            DimId *d); /* the dim of the operand that has the name */
void lacks_dim(Cx *cx, Loc loc, const char *name, const Val *v); /* E020 */
bool dim_is(const Cx *cx, DimId d, const char *plain);
int dim_coord(const Cx *cx, DimId d, const char *name); /* -1: no such coordinate */
const char *coord_text(Cx *cx, DimId d, int64_t index);
bool visible_join(Cx *cx, Loc op, const Val *a, const Val *b); /* E021, E024 */
bool dims_agree(Cx *cx, Loc op, const Val *a, const Val *b);   /* E024 alone */
bool same_visible(const Cx *cx, const Type *a, const Type *b);
bool dims_fit(Cx *cx, Loc loc, const DimId *d, uint32_t n); /* E064 if the product is absurd */
/* Names in `over=`, `per=`: one name or a list. false after a message. */
bool dim_names(Cx *cx, const Expr *e, const char **name, Loc *loc, uint32_t *n);
Val index_eval(Cx *cx, const Scope *sc, const Expr *e);
bool dim_lookup(Cx *cx, const Scope *sc, const char *name, Loc loc, DimId *d,
                bool *found);                                   /* false: found, but no size */
ValueId to_dims(Cx *cx, ValueId v, const DimId *d, uint32_t n); /* expands and transposes to exactly these */

/* ---- lower.c: the walker */
Val eval(Cx *cx, const Scope *sc, const Expr *e);
Val eval_name(Cx *cx, const Scope *sc, const char *name, Loc loc);
Val call_def(Cx *cx, const Scope *sc, const Val *def, const Expr *call);
bool call_enter(Cx *cx, const char *name, const Stmt *st, const Owner *own, Loc loc);
void call_leave(Cx *cx);
/* Binds the arguments of `call` to formals; defaults are worked out in `inner`, whose frame is filled. */
bool bind_args(Cx *cx, const Scope *sc, const Expr *call, const Formals *formals, const char *what,
               const Scope *inner);
Val eval_body(Cx *cx, const Scope *inner, const Stmts *body, const Expr *result);
Val frame_get(Cx *cx, const Scope *sc, Binding *b, Loc loc);
Binding *frame_find(Frame *f, const char *name);
Binding *frame_put(Cx *cx, Frame *f, const char *name, Val v);

/* ---- lower_ops.c: operators */
Val val_bin(Cx *cx, BinOp op, Val a, Val b, Loc loc);
Val val_neg(Cx *cx, Val a, Loc loc);
Val val_not(Cx *cx, Val a, Loc loc);
Val val_where(Cx *cx, Val m, Val a, Val b, Loc loc);
Val val_ew1(Cx *cx, Op op, Val a, Loc loc);
ValueId emit_ew(Cx *cx, Op op, const ValueId *in, uint32_t n);
/* Any other op: what the row refuses is E015 at loc, with the row's own reason. */
bool emit_checked(Cx *cx, Op op, const ValueId *in, uint32_t n, const Attr *attr, uint32_t nattr, Loc loc,
                  ValueId *out);
ValueId as_real(Cx *cx, const Val *v, DType dt);
ValueId as_mask(Cx *cx, const Val *v);
ValueId as_token(Cx *cx, const Val *v);
DType real_of(const Cx *cx, const Val *v);

/* ---- lower_builtin.c */
enum { MAX_PARAM = 8 };
typedef struct Builtin Builtin;
typedef struct {
    Cx *cx;
    const Scope *sc;
    const Expr *e; /* the call */
    const Builtin *b;
    const Expr *arg[MAX_PARAM]; /* in the order of Builtin.params; NULL: absent */
} Call;
struct Builtin {
    const char *name;
    Val (*fn)(const Call *);
    Op op; /* of element-wise functions and simple reductions */
    /* names; suffix `?`: optional, by name; `!`: by name; `*`: optional, by place or name; `...`: any more by
     * place;
     * `=`: any more by name */
    const char *params;
};
const Builtin *builtin_find(const char *name);
uint32_t builtin_names(const char **names, uint32_t max);
Val builtin_call(Cx *cx, const Scope *sc, const Builtin *b, const Expr *e);
Val arg_eval(const Call *c, int k);   /* poison if it fails */
Val arg_tensor(const Call *c, int k); /* a real tensor; constants are made one. poison after a message */
Val arg_mask(const Call *c, int k);   /* a mask as a tensor */
bool arg_dim(const Call *c, int k, const Val *x, DimId *d); /* the dim of x that arg k names */
bool arg_num(const Call *c, int k, double dflt, double *v); /* a constant number; false after a message */
/* lower_reduce.c */
Val red_sum(const Call *c);
Val red_mean(const Call *c);
Val red_var(const Call *c);
Val red_std(const Call *c);
Val red_count(const Call *c);
Val red_any(const Call *c);
Val red_all(const Call *c);
Val red_extreme(const Call *c);
Val red_quantile(const Call *c);
Val settle(Cx *cx, Val v); /* mean over the micro-batches that hold a sample */
ValueId present_mask(Cx *cx);
/* lower_seq.c: along one dim, constants */
Val seq_first(const Call *c);
Val seq_cumsum(const Call *c);
Val seq_scan(const Call *c);
Val seq_shuffle(const Call *c);
Val seq_argmax(const Call *c);
Val make_tensor(const Call *c);
Val make_table(const Call *c);
Val make_size(const Call *c);
Val make_expand(const Call *c);
/* lower_rate.c: schedules, optimizers, random numbers */
Val rate_constant(const Call *c);
Val rate_linear(const Call *c);
Val rate_cosine(const Call *c);
Val rate_hold_decay(const Call *c);
Val make_adamw(const Call *c);
Val make_sgd(const Call *c);
Val make_lora(const Call *c);
Val draw_uniform(const Call *c);
Val draw_normal(const Call *c);
Val draw_lognormal(const Call *c);
Val draw_bernoulli(const Call *c);
Val nn_dropout(const Call *c);
/* lower_nn.c: models and losses over a vocabulary */
Val nn_dot(const Call *c);
Val nn_rope(const Call *c);
Val nn_attention(const Call *c);
Val nn_cross_entropy(const Call *c);
Val nn_entropy(const Call *c);
Val nn_kl(const Call *c);

/* ---- module.c */
Module *module_load(Cx *cx, const char *name, const char *beside, Loc loc);
Decl *module_find(Module *m, const char *name);
AstFile *file_load(Cx *cx, const char *path, Loc from);
void graph_dim_entry(Cx *cx, Entry *e);               /* makes the dim of a `dim` statement with a size */
bool graph_load(Cx *cx, const char *path);            /* the chain of `extends` and the table of names */
Module *module_of_file(Cx *cx, AstFile *f, Loc from); /* of a file that is read already */
Entry *entry_find(Cx *cx, const char *name);
Val entry_get(Cx *cx, Entry *e, Loc loc); /* lower_graph.c */
bool module_check(Cx *cx, AstFile *f);    /* modcheck.c: a module on its own */
bool reads_config(Module *m, const Stmt *def, int depth);

/* ---- model.c */
Inst *inst_make(Cx *cx, const Scope *sc, const Stmt *st);
/* Keys of the file beside the weights that the configs and dims of `model NAME : KIND` read. */
void model_keys(Cx *cx, const Stmt *st, GraphModel *m);
void inst_register_dims(Cx *cx, Inst *i);
Val inst_method(Cx *cx, const Scope *sc, Inst *i, const char *name, const Expr *call, Loc loc);
bool inst_dim(Cx *cx, Inst *i, Module *m, const Stmt *st, Loc loc, bool need, DimId *d);
Val inst_config(Cx *cx, Inst *i, Module *m, const Stmt *st, Loc loc);
Val inst_let(Cx *cx, Inst *i, Module *m, const Stmt *st, Loc loc);
Decl *inst_setting(Cx *cx, Inst *i, const char *name); /* config or dim that the model has */
const Stmt *owner_member(const Owner *own, const char *name);
Val owner_get(Cx *cx, Owner *own, const Stmt *st, Loc loc);
Val stack_call(Cx *cx, const Scope *sc, Stack *s, const Expr *call, bool each);
/* param.c */
Val param_value(Cx *cx, Owner *own, const Stmt *st);
bool param_shape_size(Cx *cx, Inst *i, const Stmt *dim, Module *m, int64_t *size);
void param_walk(Cx *cx, Inst *i); /* all that some def reads under this configuration */
const char *param_name(Cx *cx, Owner *own, const Stmt *st, int which);
const char *stored_name(Cx *cx, const Scope *sc,
                        const AstStored *stored);                  /* `{..}` put in; NULL after a message */
bool pattern_match(Cx *cx, const char *pattern, const char *name); /* names without .weight */

/* ---- hyper.c, lower_graph.c, train.c */
void unknown_hypers(Cx *cx);
void train_rows(Cx *cx);   /* opt rows by pattern, before any parameter is made */
void train_finish(Cx *cx); /* optimizers, E052 */
void hints_check(Cx *cx);
Val const_of(Cx *cx, const ConstValue *v);
Val hyper_value(Cx *cx, Entry *e);
void graph_info(Cx *cx, GraphInfo *info);
/* ---- lint.c */
void lint_graph(Cx *cx, const Graph *g); /* g: what is left to run */

#endif
