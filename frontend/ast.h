/* ast.h: what wg.y makes of a file. Plain tree in an arena; every node has its Loc (line, column, byte
 * range). */
#ifndef WM_AST_H
#define WM_AST_H

#include "base/base.h"

typedef struct Expr Expr;
typedef struct {
    const char *name;
    Expr *e;
    Loc loc;
} NamedExpr; /* name NULL: positional */
typedef struct {
    NamedExpr *item;
    uint32_t n, cap;
} ExprList;

typedef enum {
    X_NUM,
    X_STR,
    X_BOOL,
    X_NAME,
    X_LIST /* ( a, b ) or [ a, b ] */,
    X_NEG,
    X_NOT,
    X_BIN,
    X_IF,
    X_MATCH,
    X_CALL,
    X_INDEX,
    X_DOT
} ExprKind;
typedef enum { B_ADD, B_SUB, B_MUL, B_DIV, B_POW, B_EQ, B_NE, B_LT, B_LE, B_GT, B_GE, B_AND, B_OR } BinOp;
struct Expr {
    ExprKind kind;
    Loc loc;              /* the whole expression */
    double num;           /* X_NUM, X_BOOL */
    bool is_int, bracket; /* X_NUM without dot, exponent, %; X_LIST written with [ ] */
    const char *name;     /* X_NAME, X_STR (unescaped), X_DOT member, X_CALL: NULL */
    BinOp op;
    Loc op_loc; /* X_BIN: of the operator; X_DOT: of the member */
    Expr *a, *b,
        *c; /* operands; X_IF: condition, then, else; X_CALL, X_INDEX, X_DOT: a is what it is applied to */
    ExprList list;  /* X_LIST, X_CALL arguments, X_INDEX indices (named: select or fill), X_MATCH arms (name =
                       string) */
    uint32_t depth; /* height of the tree, at most 1000: later stages may recurse over it */
};

typedef struct {
    const char **name;
    Loc *loc;
    uint32_t n, cap;
} Names;
typedef struct {
    const char *name;
    Names dims;
    Loc loc;
} AstType; /* f32[batch, seq] */
typedef struct {
    const char *base;
    Names choice;
    Loc loc;
} AstHType; /* f32, or a choice of strings */
typedef struct {
    const char *name;
    Expr *dflt;
    Loc loc;
} Formal;
typedef struct {
    Formal *item;
    uint32_t n, cap;
} Formals;
typedef struct {
    Names dims;
    bool unit;
    Loc loc;
} AstAxis; /* (qh, hd), hidden, or 1 */
typedef struct {
    const char *name, *halves;
    Loc loc;
} AstStored; /* "meta" halves hd */
typedef struct {
    AstStored alt[2];
    uint32_t n;
} AstStoredPair;
typedef struct {
    const char *model, *pattern;
    Loc loc;
} AstGroup;

typedef enum {
    S_IMPORT,
    S_DIM,
    S_INPUT,
    S_HYPER,
    S_INSTANCE,
    S_STATE,
    S_DEF,
    S_LET,
    S_LOSS,
    S_METRIC_NAMES,
    S_METRIC,
    S_BEST,
    S_TRAIN,
    S_CLIP,
    S_ADAPT,
    S_PLAN,
    S_TEST,
    S_CONFIG,
    S_BLOCK,
    S_MODEL,
    /* members of blocks and models */
    S_PARAM,
    S_STACK,
    S_SUBBLOCK,
    /* checks of a test */
    S_EXPECT,
    S_NEAR
} StmtKind;

typedef struct Stmt Stmt;
typedef struct {
    Stmt **item;
    uint32_t n, cap;
} Stmts;
struct Stmt {
    StmtKind kind;
    Loc loc; /* the whole statement */
    Loc name_loc;
    const char
        *name; /* what it defines; S_IMPORT: module; S_TRAIN: NULL; S_TEST: title; S_BEST: "min" or "max" */
    const char *doc; /* `##` text above, or the string of a hyper */
    Names names;     /* S_IMPORT, S_INPUT, S_METRIC_NAMES; S_DIM names of coordinates */
    Expr *e, *e2;    /* value; S_DIM size or lower bound and upper; S_STATE next; S_NEAR right side; S_TRAIN
                        optimizer */
    bool is_open, ragged, frozen, has_range, lo_open, hi_open;
    Expr *lo, *hi; /* S_HYPER range */
    AstType type;
    bool has_type;
    AstHType htype;
    const char *from; /* S_INPUT source */
    Names keys;       /* S_DIM, S_CONFIG: from "a" | "b" */
    const char *kind_name;
    Loc kind_loc; /* S_INSTANCE, S_STACK, S_SUBBLOCK: what is instantiated */
    ExprList args;
    bool has_args; /* S_INSTANCE */
    Formals params;
    bool has_params; /* S_DEF, S_BLOCK, S_MODEL */
    Stmts body;      /* S_DEF lets (S_LET); S_BLOCK, S_MODEL members; S_TEST checks */
    AstAxis *axis;
    uint32_t naxis, axis_cap; /* S_PARAM */
    AstStoredPair stored[2];
    uint32_t nstored; /* S_PARAM, S_SUBBLOCK: one; S_STACK: one or two */
    AstGroup *group;
    uint32_t ngroup, group_cap;  /* S_TRAIN */
    const char *model, *pattern; /* S_ADAPT; S_BEST: model NULL, pattern = "val.loss" */
    struct {
        const char **word;
        Loc *loc;
        uint32_t n, cap;
    } * hint;
    uint32_t nhint, hint_cap; /* S_PLAN: words of each line */
};

typedef struct {
    const char *path, *text;
    size_t len;
    bool is_module, ok; /* ok: no syntax error */
    const char *name, *base;
    Loc name_loc, base_loc;
    const char *doc; /* `##` text above the header */
    Stmts body;
} AstFile;

/* Parses a file's text. Always returns a tree (statements with errors are left out); errors go to d. */
AstFile *wg_parse(Arena *a, const char *path, const char *text, size_t len, Diags *d);
/* Parses one expression (the `{..}` of a stored name), located inside `where`. NULL on error. */
Expr *wg_parse_expr(Arena *a, const char *text, size_t len, Loc where, Diags *d);

#endif
