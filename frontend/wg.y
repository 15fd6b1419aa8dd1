/* wg.y: the grammar of `.wg` (bison, LALR(1), no conflicts); builds the tree of ast.h.
 *
 * Actions only call the constructors of parse.c. After a syntax error the parser goes on at the end of the statement;
 * the rule of a statement with an error gives NULL, which no list keeps. Expected tokens are exact (LAC). */
%define api.pure full
%define api.prefix {wg}
%define api.location.type {Loc}
%define lr.type lalr
%define parse.error custom
%define parse.lac full
%locations
%expect 0
%param {void *scanner}
%parse-param {Parser *p}

%code requires {
#include "frontend/parse.h"
}
%code top {
/* The stack has one size, so that the parser never asks for memory; full, it ends in a message (parse_too_deep). */
#define YYINITDEPTH 3000
#define YYMAXDEPTH YYINITDEPTH
#define YYSTACK_ALLOC(n) no_memory(n)
#define YYLLOC_DEFAULT(cur, rhs, n) ((cur) = loc_join((rhs), (n)))
#include <stddef.h>
static inline void *no_memory(size_t n) { (void)n; return NULL; }
}
%code {
int wglex(WGSTYPE *value, Loc *loc, void *scanner);
static void wgerror(const Loc *loc, void *scanner, Parser *p, const char *text);
}

%union {
    const char *text;
    struct { double value; bool is_int; } num;
    BinOp op;
    bool flag;
    Expr *expr;
    NamedExpr named;
    ExprList list;
    Names names;
    AstType type;
    AstHType htype;
    Range range;
    DimDef dimdef;
    Formals formals;
    Axes axes;
    AstStored stored;
    AstStoredPair pair;
    Groups groups;
    Hints hints;
    Header header;
    Stmt *stmt;
    Stmts stmts;
}

%token FILE_START EXPR_START
%token END 0 "end of file"
%token <text> NAME "name" STRING "string"
%token <num> NUMBER "number"
%token NL "end of line"
%token GRAPH "graph" MODULE "module" CONFIG "config" BLOCK "block" PARAM "param" STACK "stack" HALVES "halves"
%token EXTENDS "extends" FROM "from" IMPORT "import" DIM "dim" RAGGED "ragged" INPUT "input" HYPER "hyper" IN "in"
%token FROZEN "frozen" MODEL "model" STATE "state" NEXT "next" DEF "def" RETURN "return" OPEN "open" LOSS "loss"
%token METRIC "metric" BEST "best" TRAIN "train" WITH "with" ADAPT "adapt" CLIP_NORM "clip_norm" PLAN "plan"
%token TEST "test" EXPECT "expect" IF "if" THEN "then" ELSE "else" MATCH "match" AND "and" OR "or" NOT "not"
%token TRUE "true" FALSE "false" EQ "==" NE "!=" LE "<=" GE ">=" NEAR "~=" DOTS ".."

%type <stmts> stmts checks lets
%type <stmts> members
%type <stmt> stmt instance def check member
%type <header> header
%type <names> names keys keylist hint
%type <dimdef> dimdef
%type <flag> open ragged lo hi
%type <type> type optype
%type <htype> htype
%type <text> source doc word path
%type <range> range
%type <expr> dflt expr or_e and_e not_e cmp sum mul una pow post atom
%type <expr> chain
%type <list> args optargs arglist index exprs arms
%type <named> arg ix arm
%type <op> rel
%type <formals> params paramlist optparams
%type <groups> groups
%type <hints> hints
%type <axes> axes axislist
%type <stored> name
%type <pair> stored
%%
start   : FILE_START header NL stmts {
              p->file->doc = doc_below(p, @2.at);
              p->file->is_module = $2.is_module;
              p->file->name = $2.text;
              p->file->name_loc = $2.loc;
              p->file->base = $2.base;
              p->file->base_loc = $2.base_loc;
              p->file->body = $4;
          }
        | FILE_START error NL stmts { p->file->body = $4; }
        | EXPR_START expr NL { p->expr = $2; }
        ;
header  : GRAPH NAME { $$ = (Header){.text = $2, .loc = @2}; }
        | GRAPH NAME EXTENDS NAME { $$ = (Header){.text = $2, .loc = @2, .base = $4, .base_loc = @4}; }
        | MODULE NAME { $$ = (Header){.text = $2, .loc = @2, .is_module = true}; }
        ;
stmts   : %empty { $$ = (Stmts){0}; }
        | stmts stmt NL { $$ = $1; stmts_add(p, &$$, $2); }
        | stmts error NL { $$ = $1; yyerrok; }
        ;
nl      : %empty | NL ;

stmt    : FROM NAME IMPORT names { $$ = stmt_new(p, S_IMPORT, @$, $2, @2); $$->names = $4; }
        | DIM NAME dimdef ragged keys {
              $$ = stmt_new(p, S_DIM, @$, $2, @2);
              $$->names = $3.coords;
              $$->e = $3.lo;
              $$->e2 = $3.hi;
              $$->ragged = $4;
              $$->keys = $5;
          }
        | INPUT names ':' type source {
              $$ = stmt_new(p, S_INPUT, @$, $2.name[0], $2.loc[0]);
              $$->names = $2;
              $$->type = $4;
              $$->has_type = true;
              $$->from = $5;
          }
        | HYPER NAME ':' htype '=' expr range doc {
              $$ = stmt_new(p, S_HYPER, @$, $2, @2);
              $$->htype = $4;
              $$->e = $6;
              $$->has_range = $7.given;
              $$->lo = $7.lo;
              $$->hi = $7.hi;
              $$->lo_open = $7.lo_open;
              $$->hi_open = $7.hi_open;
              if ($8) $$->doc = $8;
          }
        | instance
        | FROZEN instance {
              $$ = $2;
              $$->loc = @$;
              $$->doc = doc_below(p, @$.at);
              $$->frozen = true;
          }
        | STATE NAME ':' type '=' expr NEXT expr {
              $$ = stmt_new(p, S_STATE, @$, $2, @2);
              $$->type = $4;
              $$->has_type = true;
              $$->e = $6;
              $$->e2 = $8;
          }
        | def
        | open NAME optype '=' expr {
              $$ = stmt_new(p, S_LET, @$, $2, @2);
              $$->is_open = $1;
              $$->type = $3;
              $$->has_type = $3.name != NULL;
              $$->e = $5;
          }
        | open LOSS NAME '=' expr { $$ = stmt_new(p, S_LOSS, @$, $3, @3); $$->is_open = $1; $$->e = $5; }
        | METRIC names { $$ = stmt_new(p, S_METRIC_NAMES, @$, $2.name[0], $2.loc[0]); $$->names = $2; }
        | METRIC NAME '=' expr { $$ = stmt_new(p, S_METRIC, @$, $2, @2); $$->e = $4; }
        | BEST NAME NAME '.' NAME {
              $$ = stmt_new(p, S_BEST, @$, $2, @2);
              $$->pattern = arena_fmt(p->a, "%s.%s", $3, $5);
              parse_best_mode(p, $2, @2);
          }
        | BEST NAME NAME '.' LOSS {
              $$ = stmt_new(p, S_BEST, @$, $2, @2);
              $$->pattern = arena_fmt(p->a, "%s.loss", $3);
              parse_best_mode(p, $2, @2);
          }
        | TRAIN groups WITH expr {
              $$ = stmt_new(p, S_TRAIN, @$, NULL, @1);
              $$->group = $2.item;
              $$->ngroup = $2.n;
              $$->group_cap = $2.cap;
              $$->e = $4;
          }
        | CLIP_NORM expr { $$ = stmt_new(p, S_CLIP, @$, NULL, @1); $$->e = $2; }
        | ADAPT NAME STRING WITH expr {
              $$ = stmt_new(p, S_ADAPT, @$, $2, @2);
              $$->model = $2;
              $$->pattern = $3;
              $$->e = $5;
          }
        | PLAN '{' hints nl '}' { $$ = stmt_new(p, S_PLAN, @$, NULL, @1); stmt_hints(p, $$, &$3); }
        | TEST STRING '{' checks nl '}' { $$ = stmt_new(p, S_TEST, @$, $2, @2); $$->body = $4; }
        | CONFIG NAME ':' htype dflt keys {
              $$ = stmt_new(p, S_CONFIG, @$, $2, @2);
              $$->htype = $4;
              $$->e = $5;
              $$->keys = $6;
          }
        | BLOCK NAME '(' params ')' '{' members RETURN expr nl '}' {
              $$ = stmt_new(p, S_BLOCK, @$, $2, @2);
              $$->params = $4;
              $$->has_params = true;
              $$->body = $7;
              $$->e = $9;
          }
        | MODEL NAME optparams '{' members '}' {
              $$ = stmt_new(p, S_MODEL, @$, $2, @2);
              $$->params = $3;
              $$->has_params = @3.len > 0;
              $$->body = $5;
          }
        | BLOCK NAME '(' params ')' '{' members error '}' { $$ = NULL; yyerrok; }
        | MODEL NAME optparams '{' members error '}' { $$ = NULL; yyerrok; }
        ;
instance: MODEL NAME ':' NAME optargs {
              $$ = stmt_new(p, S_INSTANCE, @$, $2, @2);
              $$->kind_name = $4;
              $$->kind_loc = @4;
              $$->args = $5;
              $$->has_args = @5.len > 0;
          }
        ;
def     : DEF NAME '(' params ')' '=' expr {
              $$ = stmt_new(p, S_DEF, @$, $2, @2);
              $$->params = $4;
              $$->has_params = true;
              $$->e = $7;
          }
        | DEF NAME '(' params ')' '{' lets RETURN expr nl '}' {
              $$ = stmt_new(p, S_DEF, @$, $2, @2);
              $$->params = $4;
              $$->has_params = true;
              $$->body = $7;
              $$->e = $9;
          }
        ;
optargs : %empty { $$ = (ExprList){0}; } | args ;
optparams: %empty { $$ = (Formals){0}; } | '(' params ')' { $$ = $2; } ;
source  : %empty { $$ = NULL; } | FROM STRING { $$ = $2; } ;
open    : %empty { $$ = false; } | OPEN { $$ = true; } ;
optype  : %empty { $$ = (AstType){0}; } | ':' type { $$ = $2; } ;
ragged  : %empty { $$ = false; } | RAGGED { $$ = true; } ;
doc     : %empty { $$ = NULL; } | STRING ;
dflt    : %empty { $$ = NULL; } | '=' expr { $$ = $2; } ;
keys    : %empty { $$ = (Names){0}; } | FROM keylist { $$ = $2; } ;
keylist : STRING { $$ = (Names){0}; names_add(p, &$$, $1, @1); }
        | keylist '|' STRING { $$ = $1; names_add(p, &$$, $3, @3); }
        ;
names   : NAME { $$ = (Names){0}; names_add(p, &$$, $1, @1); }
        | names ',' NAME { $$ = $1; names_add(p, &$$, $3, @3); }
        ;
dimdef  : %empty { $$ = (DimDef){0}; }
        | '=' '{' names nl '}' { $$ = (DimDef){.coords = $3}; }
        | '=' expr { $$ = (DimDef){.lo = $2}; }
        | '=' expr DOTS expr { $$ = (DimDef){.lo = $2, .hi = $4}; }
        ;
type    : NAME { $$ = (AstType){.name = $1, .loc = @$}; }
        | NAME '[' names ']' { $$ = (AstType){.name = $1, .dims = $3, .loc = @$}; }
        ;
htype   : NAME { $$ = (AstHType){.base = $1, .loc = @$}; }
        | STRING { $$ = (AstHType){.loc = @$}; names_add(p, &$$.choice, $1, @1); }
        | htype '|' STRING { $$ = $1; $$.loc = @$; names_add(p, &$$.choice, $3, @3); }
        ;
range   : %empty { $$ = (Range){0}; }
        | IN lo expr ',' expr hi { $$ = (Range){.lo = $3, .hi = $5, .lo_open = $2, .hi_open = $6, .given = true}; }
        ;
lo      : '(' { $$ = true; } | '[' { $$ = false; } ;
hi      : ')' { $$ = true; } | ']' { $$ = false; } ;
params  : %empty { $$ = (Formals){0}; } | paramlist ;
paramlist: NAME { $$ = (Formals){0}; formals_add(p, &$$, $1, NULL, @$); }
        | NAME '=' expr { $$ = (Formals){0}; formals_add(p, &$$, $1, $3, @$); }
        | paramlist ',' NAME { $$ = $1; formals_add(p, &$$, $3, NULL, @3); }
        | paramlist ',' NAME '=' expr { $$ = $1; formals_add(p, &$$, $3, $5, loc_join((Loc[]){@$, @3, @4, @5}, 3)); }
        ;
lets    : %empty { $$ = (Stmts){0}; }
        | lets NAME '=' expr NL {
              $$ = $1;
              Stmt *s = stmt_new(p, S_LET, loc_join((Loc[]){@$, @2, @3, @4}, 3), $2, @2);
              s->e = $4;
              stmts_add(p, &$$, s);
          }
        ;
groups  : NAME { $$ = (Groups){0}; groups_add(p, &$$, $1, NULL, @1); }
        | NAME STRING { $$ = (Groups){0}; groups_add(p, &$$, $1, $2, @$); }
        | groups ',' NAME { $$ = $1; groups_add(p, &$$, $3, NULL, @3); }
        | groups ',' NAME STRING { $$ = $1; groups_add(p, &$$, $3, $4, loc_join((Loc[]){@$, @3, @4}, 2)); }
        ;
/* No yyerrok where nothing was read since the error: the same token would come back for ever. */
hints   : hint { $$ = (Hints){0}; hints_add(p, &$$, $1); }
        | hints NL hint { $$ = $1; hints_add(p, &$$, $3); }
        | error { $$ = (Hints){0}; }
        | hints NL error { $$ = $1; }
        ;
hint    : word { $$ = (Names){0}; names_add(p, &$$, $1, @1); }
        | hint word { $$ = $1; names_add(p, &$$, $2, @2); }
        ;
word    : NUMBER { $$ = source_text(p, @1); } | path ;
path    : NAME
        | path '.' NAME { $$ = arena_fmt(p->a, "%s.%s", $1, $3); }
        | path '.' NUMBER { $$ = arena_fmt(p->a, "%s.%s", $1, source_text(p, @3)); }
        ;
checks  : check { $$ = (Stmts){0}; stmts_add(p, &$$, $1); }
        | checks NL check { $$ = $1; stmts_add(p, &$$, $3); }
        | error { $$ = (Stmts){0}; }
        | checks NL error { $$ = $1; }
        ;
check   : NAME '=' expr { $$ = stmt_new(p, S_LET, @$, $1, @1); $$->e = $3; }
        | instance
        | EXPECT expr { $$ = stmt_new(p, S_EXPECT, @$, NULL, @1); $$->e = $2; }
        | EXPECT sum NEAR sum { $$ = stmt_new(p, S_NEAR, @$, NULL, @1); $$->e = $2; $$->e2 = $4; }
        ;

members : %empty { $$ = (Stmts){0}; }
        | members member NL { $$ = $1; stmts_add(p, &$$, $2); }
        | members error NL { $$ = $1; yyerrok; }
        ;
member  : PARAM NAME ':' '[' axes ']' '=' expr stored {
              $$ = stmt_new(p, S_PARAM, @$, $2, @2);
              $$->axis = $5.item;
              $$->naxis = $5.n;
              $$->axis_cap = $5.cap;
              $$->e = $8;
              $$->stored[$$->nstored++] = $9;
          }
        | STACK NAME ':' NAME '[' expr ']' stored {
              $$ = stmt_new(p, S_STACK, @$, $2, @2);
              $$->kind_name = $4;
              $$->kind_loc = @4;
              $$->e = $6;
              $$->stored[$$->nstored++] = $8;
          }
        | STACK NAME ':' NAME '[' expr ']' stored ',' stored {
              $$ = stmt_new(p, S_STACK, @$, $2, @2);
              $$->kind_name = $4;
              $$->kind_loc = @4;
              $$->e = $6;
              $$->stored[$$->nstored++] = $8;
              $$->stored[$$->nstored++] = $10;
          }
        | BLOCK NAME ':' NAME stored {
              $$ = stmt_new(p, S_SUBBLOCK, @$, $2, @2);
              $$->kind_name = $4;
              $$->kind_loc = @4;
              $$->stored[$$->nstored++] = $5;
          }
        | NAME '=' expr { $$ = stmt_new(p, S_LET, @$, $1, @1); $$->e = $3; }
        | def
        ;
axes    : %empty { $$ = (Axes){0}; } | axislist ;
axislist: NAME { $$ = (Axes){0}; axes_add(p, &$$, $1, @1); }
        | NUMBER { $$ = (Axes){0}; axes_add_number(p, &$$, $1.value, @1); }
        | '(' names ')' { $$ = (Axes){0}; axes_add_names(p, &$$, $2, @$); }
        | axislist ',' NAME { $$ = $1; axes_add(p, &$$, $3, @3); }
        | axislist ',' NUMBER { $$ = $1; axes_add_number(p, &$$, $3.value, @3); }
        | axislist ',' '(' names ')' { $$ = $1; axes_add_names(p, &$$, $4, loc_join((Loc[]){@$, @3, @4, @5}, 3)); }
        ;
stored  : name { $$ = (AstStoredPair){.alt = {$1}, .n = 1}; }
        | name '|' name { $$ = (AstStoredPair){.alt = {$1, $3}, .n = 2}; }
        ;
name    : STRING { $$ = (AstStored){.name = $1, .loc = @1}; }
        | STRING HALVES NAME { $$ = (AstStored){.name = $1, .halves = $3, .loc = @1}; }
        ;

expr    : IF expr THEN expr ELSE expr { $$ = expr_new(p, X_IF, @$, $2, $4, $6); }
        | MATCH expr '{' arms nl '}' { $$ = expr_list(p, X_MATCH, @$, $2, $4); }
        | or_e
        ;
arms    : arm { $$ = (ExprList){0}; list_add(p, &$$, $1); }
        | arms ',' arm { $$ = $1; list_add(p, &$$, $3); }
        ;
arm     : STRING ':' expr { $$ = (NamedExpr){.name = $1, .e = $3, .loc = @1}; } ;
or_e    : and_e | or_e OR and_e { $$ = expr_bin(p, @$, B_OR, @2, $1, $3); } ;
and_e   : not_e | and_e AND not_e { $$ = expr_bin(p, @$, B_AND, @2, $1, $3); } ;
not_e   : NOT not_e { $$ = expr_new(p, X_NOT, @$, $2, NULL, NULL); } | cmp ;
cmp     : sum
        | sum rel sum { $$ = expr_bin(p, @$, $2, @2, $1, $3); }
        | chain
        ;
chain   : sum rel sum rel sum {
              Expr *first = expr_bin(p, loc_join((Loc[]){@$, @1, @2, @3}, 3), $2, @2, $1, $3);
              Expr *second = expr_bin(p, loc_join((Loc[]){@$, @3, @4, @5}, 3), $4, @4, $3, $5);
              $$ = expr_bin(p, @$, B_AND, @4, first, second);
              parse_chained(p, first, second, @4);
          }
        | chain rel sum
        ;
rel     : EQ { $$ = B_EQ; } | NE { $$ = B_NE; } | '<' { $$ = B_LT; } | LE { $$ = B_LE; }
        | '>' { $$ = B_GT; } | GE { $$ = B_GE; } ;
sum     : mul
        | sum '+' mul { $$ = expr_bin(p, @$, B_ADD, @2, $1, $3); }
        | sum '-' mul { $$ = expr_bin(p, @$, B_SUB, @2, $1, $3); }
        ;
mul     : una
        | mul '*' una { $$ = expr_bin(p, @$, B_MUL, @2, $1, $3); }
        | mul '/' una { $$ = expr_bin(p, @$, B_DIV, @2, $1, $3); }
        ;
una     : '-' una { $$ = expr_new(p, X_NEG, @$, $2, NULL, NULL); } | pow ;
pow     : post | post '^' una { $$ = expr_bin(p, @$, B_POW, @2, $1, $3); } ;
post    : atom
        | post args { $$ = expr_list(p, X_CALL, @$, $1, $2); }
        | post '[' index ']' { $$ = expr_list(p, X_INDEX, @$, $1, $3); }
        | post '.' NAME {
              $$ = expr_new(p, X_DOT, @$, $1, NULL, NULL);
              $$->name = $3;
              $$->op_loc = @3;
          }
        ;
index   : ix { $$ = (ExprList){0}; list_add(p, &$$, $1); }
        | index ',' ix { $$ = $1; list_add(p, &$$, $3); }
        ;
ix      : expr { $$ = (NamedExpr){.e = $1, .loc = @$}; }
        | NAME '=' expr { $$ = (NamedExpr){.name = $1, .e = $3, .loc = @1}; }
        ;
args    : '(' ')' { $$ = (ExprList){0}; } | '(' arglist ')' { $$ = $2; } ;
arglist : arg { $$ = (ExprList){0}; list_add(p, &$$, $1); }
        | arglist ',' arg { $$ = $1; list_add(p, &$$, $3); }
        ;
arg     : expr { $$ = (NamedExpr){.e = $1, .loc = @$}; }
        | NAME '=' expr { $$ = (NamedExpr){.name = $1, .e = $3, .loc = @1}; }
        ;
atom    : NAME { $$ = expr_text(p, X_NAME, @$, $1); }
        | NUMBER { $$ = expr_num(p, X_NUM, @$, $1.value, $1.is_int); }
        | STRING { $$ = expr_text(p, X_STR, @$, $1); }
        | TRUE { $$ = expr_num(p, X_BOOL, @$, 1, false); }
        | FALSE { $$ = expr_num(p, X_BOOL, @$, 0, false); }
        | '(' exprs ')' { $$ = $2.n == 1 ? $2.item[0].e : expr_list(p, X_LIST, @$, NULL, $2); }
        | '[' ']' { $$ = expr_list(p, X_LIST, @$, NULL, (ExprList){0}); $$->bracket = true; }
        | '[' exprs ']' { $$ = expr_list(p, X_LIST, @$, NULL, $2); $$->bracket = true; }
        ;
exprs   : expr { $$ = (ExprList){0}; list_add(p, &$$, (NamedExpr){.e = $1, .loc = @1}); }
        | exprs ',' expr { $$ = $1; list_add(p, &$$, (NamedExpr){.e = $3, .loc = @3}); }
        ;
%%
/* Only the exhausted stack comes here; syntax errors go through wgreport_syntax_error. */
static void wgerror(const Loc *loc, void *scanner, Parser *p, const char *text) {
    (void)scanner, (void)text;
    parse_too_deep(p, *loc);
}

static int yyreport_syntax_error(const yypcontext_t *context, void *scanner, Parser *p) {
    yysymbol_kind_t kind[YYNTOKENS];
    const char *expected[YYNTOKENS];
    (void)scanner;
    int n = yypcontext_expected_tokens(context, kind, YYNTOKENS);
    for (int i = 0; i < n; i++) expected[i] = yysymbol_name(kind[i]);
    parse_syntax_error(p, *yypcontext_location(context), expected, n > 0 ? (uint32_t)n : 0);
    return 0;
}
