/* parse.h: what the lexer, the grammar and their helpers share; private to frontend/.
 *
 * One Parser lives for one text. The lexer copies the text once (flex writes into its buffer) and counts
 * lines itself, so that every token knows its byte range; the grammar joins these ranges. All memory is the
 * caller's arena. */
#ifndef WM_PARSE_H
#define WM_PARSE_H

#include "frontend/ast.h"

enum {
    MAX_SOURCE_BYTES = 16 << 20, /* of a file */
    MAX_NESTING = 200,           /* open brackets */
    MAX_EXPR_DEPTH = 1000,       /* height of an expression tree, so that later stages may recurse */
    MAX_NAME_BYTES = 128,
    MAX_SYNTAX_ERRORS = 20
};

typedef struct {
    const char *text;
    uint32_t at;
} Doc; /* a doc comment and the offset of the token below it */
typedef struct {
    Names *item;
    uint32_t n, cap;
} Hints;
typedef struct {
    AstAxis *item;
    uint32_t n, cap;
} Axes;
typedef struct {
    AstGroup *item;
    uint32_t n, cap;
} Groups;
typedef struct {
    Expr *lo, *hi;
    bool lo_open, hi_open, given;
} Range;
typedef struct {
    const char *text, *base;
    Loc loc, base_loc;
    bool is_module;
} Header;
typedef struct {
    Expr *lo, *hi;
    Names coords;
} DimDef;

enum { COMMENT_TOKEN = -1 };
typedef struct {
    int token;
    Loc loc;
} LexToken; /* NL tokens too; comments as COMMENT_TOKEN */
typedef struct {
    LexToken *item;
    uint32_t n, cap;
} LexTokens;

typedef struct Parser {
    Arena *a;
    Diags *d;
    const char *text;
    size_t len;
    char *buf;     /* the copy that flex scans */
    Loc base;      /* where offset 0 is; an expression inside a string starts in the middle of a line */
    AstFile *file; /* NULL when only an expression is wanted */
    Expr *expr;
    /* lexer */
    bool started, at_end, stop;
    uint32_t line, line_at; /* current line from 0 and the offset of its first byte */
    int last;               /* token before */
    Loc end;                /* right after it */
    bool hidden;            /* a newline since then was no token */
    struct {
        char c;
        Loc loc;
    } open[MAX_NESTING];
    uint32_t nopen;
    bool has_unclosed; /* the bracket that the last token closed in a wrong way */
    Loc unclosed;
    char unclosed_char;
    Sbuf doc_text;
    uint32_t doc_line; /* of the last doc comment */
    Doc *doc;
    uint32_t ndoc, doc_cap;
    LexTokens *record; /* NULL: nobody wants them */
    /* for messages */
    uint32_t ntoken; /* tokens of this statement so far */
    int first_token;
    Loc first;
    uint32_t nerror, error_line; /* line of the last error, from 1 */
} Parser;

/* lex.c: called by the actions of wg.l. */
Loc lex_loc(const Parser *p, uint32_t at, uint32_t len);
int lex_token(Parser *p, int token, Loc loc);
bool lex_newline(Parser *p, uint32_t at, uint32_t len, Loc *loc);
int lex_end(Parser *p, Loc *loc);
void lex_comment(Parser *p, uint32_t at, const char *s, uint32_t len);
uint32_t lex_name_length(const char *s,
                         uint32_t n); /* bytes that form a name; 0: the first character cannot */
int lex_bad_char(Parser *p, const char *s, uint32_t n, uint32_t at, uint32_t *used);
bool lex_ends_statement(const Parser *p, const char *s, uint32_t n);
int lex_hidden_newline(Parser *p, Loc *loc);
int lex_word(Parser *p, const char *s, uint32_t n, Loc loc, const char **name);
double lex_number(Parser *p, const char *s, uint32_t n, Loc loc, bool *is_int);
const char *lex_string(Parser *p, const char *s, uint32_t n, Loc loc, bool closed);
void lex_malformed(Parser *p, const char *s, uint32_t n, Loc loc);
extern const char *const statement_words[]; /* keywords that begin a statement */
extern const uint32_t nstatement_words;

void lex_record(Parser *p, int token, Loc loc);

/* parse_error.c */
void parse_syntax_error(Parser *p, Loc loc, const char *const *expected, uint32_t n);
void parse_too_deep(Parser *p, Loc loc);
void parse_chained(Parser *p, const Expr *first, const Expr *second, Loc op);
void parse_best_mode(Parser *p, const char *mode, Loc loc);
/* Adds an error and counts it; the file is then not ok. */
Diag *parse_error(Parser *p, Code code, Loc loc, const char *fmt, ...) WM_PRINTF(4, 5);

/* parse.c */
/* wg_parse that also gives the tokens. */
AstFile *parse_file(Arena *a, const char *path, const char *text, size_t len, LexTokens *tokens, Diags *d);
Loc loc_join(const Loc *rhs, int n);                 /* rhs[1] to rhs[n]; empty ones do not count */
const char *doc_below(const Parser *p, uint32_t at); /* of the statement that begins there, or NULL */
Stmt *stmt_new(Parser *p, StmtKind kind, Loc loc, const char *name, Loc name_loc);
void stmts_add(Parser *p, Stmts *s, Stmt *x);
void names_add(Parser *p, Names *s, const char *name, Loc loc);
void formals_add(Parser *p, Formals *s, const char *name, Expr *dflt, Loc loc);
void list_add(Parser *p, ExprList *s, NamedExpr x);
void hints_add(Parser *p, Hints *s, Names words);
void axes_add(Parser *p, Axes *s, const char *dim, Loc loc);
void axes_add_names(Parser *p, Axes *s, Names dims, Loc loc);
void axes_add_number(Parser *p, Axes *s, double value, Loc loc);
void groups_add(Parser *p, Groups *s, const char *model, const char *pattern, Loc loc);
void stmt_hints(Parser *p, Stmt *s, const Hints *h);
Expr *expr_new(Parser *p, ExprKind kind, Loc loc, Expr *a, Expr *b, Expr *c);
Expr *expr_bin(Parser *p, Loc loc, BinOp op, Loc op_loc, Expr *a, Expr *b);
Expr *expr_list(Parser *p, ExprKind kind, Loc loc, Expr *a, ExprList list);
Expr *expr_num(Parser *p, ExprKind kind, Loc loc, double v, bool is_int);
Expr *expr_text(Parser *p, ExprKind kind, Loc loc, const char *s);
char *source_text(Parser *p, Loc loc); /* the bytes of loc, copied */

#endif
